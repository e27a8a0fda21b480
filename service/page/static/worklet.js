// What the microphone hears, block by block, to the page.
registerProcessor('listen', class extends AudioWorkletProcessor {
  process([[samples]]) {
    if (samples) this.port.postMessage(samples.slice());
    return true;
  }
});

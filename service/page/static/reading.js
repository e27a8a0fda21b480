// A call of Generate, read a frame at a time.
import { stream } from './connect.js';

/** Runs one call of Generate; `on.tokens` has those of a frame, so that the page draws once a frame. */
export async function readTokens(request, signal, on) {
  let waiting = [];
  let frame = 0;
  const flush = () => { frame = 0; const tokens = waiting; waiting = []; if (tokens.length) on.tokens(tokens); };
  let last = {};
  try {
    for await (const message of stream('Generate', request, signal)) {
      if (message.seed !== undefined) on.seed?.(message.seed);
      if (message.echo) on.echo?.(message.echo);
      for (const token of message.tokens ?? []) waiting.push(token);
      for (const point of message.resumePoints ?? []) on.point?.(point);
      if (waiting.length && !frame) frame = requestAnimationFrame(flush);
      last = message;
    }
  } finally {
    cancelAnimationFrame(frame);
    flush();
  }
  return last;
}

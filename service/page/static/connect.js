// Calls of the public methods: Connect's JSON over fetch, and over WebSocket.
// https://connectrpc.com/docs/protocol

export const SERVICE = 'unroll.v1.UnrollService';

let token = '';
export const setToken = (value) => { token = value; };

const TITLES = {
  invalid_argument: 'The request cannot be served as it stands',
  not_found: 'There is no such thing',
  already_exists: 'That name is taken',
  failed_precondition: 'Not like this',
  resource_exhausted: 'The server has no room just now',
  unavailable: 'The server cannot be reached',
  unauthenticated: 'The server asks for a token',
  permission_denied: 'This token may not do that',
  deadline_exceeded: 'It took too long',
  aborted: 'The server ended the call',
  internal: 'The server failed',
};

/** code: Connect's name of the status. title: the same in words. */
export class Refused extends Error {
  constructor(code, message) {
    super(message || 'the server gave no reason');
    this.code = code;
    this.title = TITLES[code] ?? `Refused: ${String(code).replaceAll('_', ' ')}`;
  }
}

const lost = () => new Refused('unavailable', 'The connection ended. Is the server still running? Try again.');

async function post(method, contentType, body, signal) {
  const headers = { 'Content-Type': contentType, 'Connect-Protocol-Version': '1' };
  if (token) headers.Authorization = `Bearer ${token}`;
  try {
    return await fetch(`/${SERVICE}/${method}`, { method: 'POST', headers, body, signal });
  } catch (error) {
    throw error.name === 'AbortError' ? error : lost();
  }
}

async function refusedBy(response) {
  const { code, message } = await response.json().catch(() => ({}));
  return new Refused(code ?? 'unavailable', message ?? `HTTP status ${response.status}`);
}

/** The answer to one message. Throws Refused, or AbortError. */
export async function unary(method, message, signal) {
  const response = await post(method, 'application/json', JSON.stringify(message), signal);
  if (!response.ok) throw await refusedBy(response);
  return response.json();
}

/** Each message of the answer, as it comes. Throws Refused, or AbortError. */
export async function* stream(method, message, signal) {
  const text = new TextEncoder().encode(JSON.stringify(message));
  const body = new Uint8Array(5 + text.length);
  new DataView(body.buffer).setUint32(1, text.length);
  body.set(text, 5);
  const response = await post(method, 'application/connect+json', body, signal);
  if (!response.ok) throw await refusedBy(response);
  for await (const [flags, data] of envelopes(response.body.getReader())) {
    const read = JSON.parse(data);
    if (!(flags & 2)) yield read;
    else if (read.error) throw new Refused(read.error.code, read.error.message);
    else return;
  }
  throw lost();
}

async function* envelopes(reader) {
  const decoder = new TextDecoder();
  let held = new Uint8Array(0);
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      throw error.name === 'AbortError' ? error : lost();
    }
    if (part.done) return;
    if (held.length) {
      const all = new Uint8Array(held.length + part.value.length);
      all.set(held);
      all.set(part.value, held.length);
      held = all;
    } else held = part.value;
    let at = 0;
    const view = new DataView(held.buffer, held.byteOffset, held.length);
    while (held.length - at >= 5) {
      const size = view.getUint32(at + 1);
      if (held.length - at < 5 + size) break;
      yield [held[at], decoder.decode(held.subarray(at + 5, at + 5 + size))];
      at += 5 + size;
    }
    held = held.subarray(at);
  }
}

/** A call over WebSocket, of which a browser has many at once, and sends while it reads.
 *  `on`: message, and end (with Refused, or nothing). Returns the socket's send and close. */
export function socket(method, { message, end, open }) {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
  const protocols = ['unroll.json'];
  if (token) protocols.push(`unroll.bearer.${base64Url(token)}`);
  const opened = new WebSocket(`${scheme}://${location.host}/${SERVICE}/${method}`, protocols);
  let failure;
  opened.onopen = () => open?.();
  opened.onmessage = ({ data }) => {
    const read = JSON.parse(data);
    if (read.error) failure = new Refused(read.error.code, read.error.message);
    else message(read);
  };
  opened.onclose = ({ code }) => end(failure ?? (code === 1000 ? undefined : lost()));
  return {
    send: (value) => opened.send(value === null ? '' : JSON.stringify(value)),
    close: () => { opened.onclose = null; opened.onmessage = null; opened.close(); },
  };
}

const base64Url = (text) => btoa(text).replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '');

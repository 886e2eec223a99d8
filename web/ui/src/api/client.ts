/** Requests to the server that sent this page; nowhere else. Knows when that server does not answer. */
import { signal } from '@preact/signals';
import { base } from '../router';
import { noteServerDate } from './clock';

export interface Answer<T> {
  data: T;
  warnings: string[];
  infos: string[];
}

/** The server understood and refused: `message` is its own text. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly errorType: string,
    message: string,
  ) {
    super(message);
  }
}

/** No usable answer came: nobody listens, or something between answered for the server. */
export class OfflineError extends Error {}

/** `down` holds what is known about the trouble. */
export type Connection = { up: true } | { up: false; reason: string; since: number };
export const connection = signal<Connection>({ up: true });

let probing = false;
const listeners = new Set<() => void>();
/** Called when the server answers again after having been away. */
export function onReconnect(run: () => void): () => void {
  listeners.add(run);
  return () => listeners.delete(run);
}

function markDown(reason: string): void {
  if (connection.value.up) connection.value = { up: false, reason, since: Date.now() };
  else connection.value = { ...connection.value, reason };
  if (!probing) {
    probing = true;
    void probe();
  }
}

/** Asks the cheapest endpoint, slower and slower, until it answers. */
async function probe(): Promise<void> {
  for (let wait = 1000; ; wait = Math.min(wait * 1.5, 10_000)) {
    await new Promise((done) => setTimeout(done, wait));
    if (document.hidden) continue;
    try {
      const response = await fetch(`${base}/api/v1/status/buildinfo`, { cache: 'no-store', signal: AbortSignal.timeout(5000) });
      if (response.ok) break;
      markDown(`HTTP ${response.status}`);
    } catch {
      // Still away.
    }
  }
  probing = false;
  connection.value = { up: true };
  for (const run of listeners) run();
}

export const isAbort = (error: unknown): boolean => error instanceof DOMException && error.name === 'AbortError';

export interface CallOptions {
  signal: AbortSignal;
  /** Send as a POST form: expressions may be longer than a URL may be. */
  post?: boolean;
  /** One of our own additions, below `/api/ext/v1/`. */
  ext?: boolean;
}

type Params = Record<string, string | number | undefined> | [string, string][];

/**
 * Calls `${base}/api/v1/${path}` (or `/api/ext/v1/`, our own additions) and opens the envelope. Rejects with ApiError,
 * OfflineError or an AbortError.
 */
export async function call<T>(path: string, params: Params, options: CallOptions): Promise<Answer<T>> {
  const form = new URLSearchParams();
  const pairs = Array.isArray(params) ? params : Object.entries(params);
  for (const [k, v] of pairs) if (v !== undefined) form.append(k, String(v));
  const text = form.toString();
  const url = `${base}/api/${options.ext ? 'ext/' : ''}v1/${path}${!options.post && text !== '' ? `?${text}` : ''}`;
  let response: Response;
  let body: string;
  try {
    response = await fetch(url, {
      signal: options.signal,
      cache: 'no-store',
      headers: { accept: 'application/json' },
      ...(options.post ? { method: 'POST', body: form } : {}),
    });
    noteServerDate(response.headers.get('date'));
    body = await response.text();
  } catch (error) {
    if (isAbort(error)) throw error;
    markDown('no answer');
    throw new OfflineError('The server does not answer.');
  }
  let envelope: { status?: string; data?: T; error?: string; errorType?: string; warnings?: string[]; infos?: string[] } | undefined;
  try {
    envelope = JSON.parse(body);
  } catch {
    envelope = undefined;
  }
  if (envelope?.status === 'success') return { data: envelope.data as T, warnings: envelope.warnings ?? [], infos: envelope.infos ?? [] };
  if (envelope?.status === 'error') throw new ApiError(response.status, envelope.errorType ?? 'error', envelope.error ?? 'no message');
  if (response.status >= 502 && response.status <= 504) {
    markDown(`HTTP ${response.status}`);
    throw new OfflineError(`The server is not available (HTTP ${response.status}).`);
  }
  const excerpt = body.trim().slice(0, 300);
  throw new ApiError(response.status, `HTTP ${response.status}`, excerpt === '' ? `HTTP ${response.status}` : excerpt);
}

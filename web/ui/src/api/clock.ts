/**
 * The server's clock. A browser whose clock is wrong would ask for a span the server has no samples of yet; every answer
 * carries the server's time, and a difference that the one-second resolution of that header cannot explain is corrected.
 */

const toleranceMs = 5000;
let offsetMs = 0;

/** Takes note of a response's `Date` header. */
export function noteServerDate(header: string | null, receivedMs = Date.now()): void {
  const server = header === null ? Number.NaN : Date.parse(header);
  if (Number.isNaN(server)) return;
  const difference = server + 500 - receivedMs;
  offsetMs = Math.abs(difference) > toleranceMs ? difference : 0;
}

/** Now, in milliseconds, as the server sees it. */
export const now = (): number => Date.now() + offsetMs;

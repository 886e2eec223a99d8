import { call } from './client';

/** More names than this are not completed; the server is told, too. */
const namesMax = 20_000;

export async function loadMetricNames(signal: AbortSignal): Promise<string[]> {
  const { data } = await call<string[]>('label/__name__/values', { limit: namesMax }, { signal });
  return data.slice(0, namesMax);
}

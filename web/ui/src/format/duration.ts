/** Durations: human form for cells, Prometheus form for queries and URLs. */
import { UNKNOWN } from './number';

const minute = 60;
const hour = 3600;
const day = 86_400;

/** Seconds for people, two units at most: 350ms, 4.2s, 1m 5s, 2h 3m, 3d 4h. */
export function human(seconds: number | undefined): string {
  if (seconds === undefined || Number.isNaN(seconds)) return UNKNOWN;
  if (seconds < 0) return `-${human(-seconds)}`;
  if (seconds === Number.POSITIVE_INFINITY) return '∞';
  if (seconds === 0) return '0s';
  if (seconds < 0.001) return '<1ms';
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)}ms`;
  if (seconds < 9.95) return `${Number(seconds.toFixed(1))}s`;
  const whole = Math.round(seconds);
  if (whole < minute) return `${whole}s`;
  if (whole < hour) return two(whole, minute, 'm', 1, 's');
  if (whole < day) return two(whole, hour, 'h', minute, 'm');
  if (whole < 1000 * day) return two(whole, day, 'd', hour, 'h');
  return `${Math.round(whole / (365 * day))}y`;
}

function two(whole: number, big: number, bigName: string, small: number, smallName: string): string {
  const first = Math.floor(whole / big);
  const second = Math.floor((whole % big) / small);
  return second === 0 ? `${first}${bigName}` : `${first}${bigName} ${second}${smallName}`;
}

const units: [string, number][] = [
  ['y', 365 * 86_400_000],
  ['w', 7 * 86_400_000],
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
];
const pattern = /^(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?$/;

/** Milliseconds of a Prometheus duration such as `1h30m`; undefined when it is none. */
export function parse(text: string): number | undefined {
  const trimmed = text.trim();
  if (trimmed === '') return undefined;
  const match = pattern.exec(trimmed);
  if (!match) return undefined;
  return units.reduce((sum, [, size], i) => sum + Number(match[i + 1] ?? 0) * size, 0);
}

/** Prometheus form of a number of milliseconds, without weeks and years unless they fit exactly. */
export function format(milliseconds: number): string {
  let rest = Math.max(0, Math.round(milliseconds));
  if (rest === 0) return '0s';
  let text = '';
  for (const [name, size] of units) {
    if ((name === 'y' || name === 'w') && rest % size !== 0) continue;
    const n = Math.floor(rest / size);
    if (n > 0) text += `${n}${name}`;
    rest -= n * size;
  }
  return text;
}

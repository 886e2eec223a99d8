/** Numbers for people: short in cells, exact in titles. Unknown values are an em dash, never a zero. */

export const UNKNOWN = '—';

const grouped = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const exactly = new Intl.NumberFormat('en-US', { maximumFractionDigits: 6 });
const suffixes = ['', 'k', 'M', 'G', 'T', 'P', 'E'];

/** Three significant digits with an SI suffix: 1.24k, 87.1M. */
export function compact(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'NaN' : value > 0 ? '∞' : '-∞';
  const magnitude = Math.abs(value);
  if (magnitude < 1000) return trim(value);
  let power = Math.min(Math.floor(Math.log10(magnitude) / 3), suffixes.length - 1);
  let scaled = value / 1000 ** power;
  // 999 950 would print as 1000k.
  if (Math.abs(Number(scaled.toPrecision(3))) >= 1000 && power < suffixes.length - 1) {
    power += 1;
    scaled = value / 1000 ** power;
  }
  return `${trim(scaled)}${suffixes[power]}`;
}

function trim(value: number): string {
  const magnitude = Math.abs(value);
  if (magnitude !== 0 && magnitude < 0.001) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

/** A number of messages: exact up to 99 999, then compact. */
export function count(value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return UNKNOWN;
  return Number.isFinite(value) && Math.abs(value) < 100_000 ? grouped.format(value) : compact(value);
}

/** A rate per second. */
export function rate(value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return UNKNOWN;
  if (value !== 0 && Math.abs(value) < 0.01) return '<0.01';
  return Math.abs(value) < 1000 ? String(Number(value.toFixed(Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0))) : compact(value);
}

/** The exact value for a title, with separators. */
export function exact(value: number | undefined): string {
  if (value === undefined) return 'unknown';
  return Number.isFinite(value) ? exactly.format(value) : compact(value);
}

/** Bytes in binary units. */
export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let power = 0;
  let scaled = value;
  while (Math.abs(scaled) >= 1024 && power < units.length - 1) {
    scaled /= 1024;
    power += 1;
  }
  return `${Number(scaled.toPrecision(3))} ${units[power]}`;
}

/** A sample value as the API writes it: a decimal, `NaN`, `+Inf` or `-Inf`. */
export function sampleValue(text: string): number {
  if (text === '+Inf' || text === 'Inf') return Number.POSITIVE_INFINITY;
  if (text === '-Inf') return Number.NEGATIVE_INFINITY;
  return Number(text);
}

/** Moments in the zone the reader chose. The URL always carries UTC, as Prometheus' own pages do. */

export type Zone = 'local' | 'utc';

const pad = (n: number, width = 2) => String(n).padStart(width, '0');

function parts(ms: number, zone: Zone) {
  const d = new Date(ms);
  return zone === 'utc'
    ? { y: d.getUTCFullYear(), mo: d.getUTCMonth() + 1, d: d.getUTCDate(), h: d.getUTCHours(), mi: d.getUTCMinutes(), s: d.getUTCSeconds() }
    : { y: d.getFullYear(), mo: d.getMonth() + 1, d: d.getDate(), h: d.getHours(), mi: d.getMinutes(), s: d.getSeconds() };
}

/** `2026-11-22 18:04:05` */
export function dateTime(ms: number, zone: Zone): string {
  const p = parts(ms, zone);
  return `${p.y}-${pad(p.mo)}-${pad(p.d)} ${pad(p.h)}:${pad(p.mi)}:${pad(p.s)}`;
}

/** `18:04:05` */
export function clock(ms: number, zone: Zone): string {
  const p = parts(ms, zone);
  return `${pad(p.h)}:${pad(p.mi)}:${pad(p.s)}`;
}

/** Reads what `dateTime` writes (seconds may be missing, `T` is allowed); undefined when it is no moment. */
export function parseDateTime(text: string, zone: Zone): number | undefined {
  const m = /^(\d{4})-(\d{2})-(\d{2})(?:[ T](\d{2}):(\d{2})(?::(\d{2}))?)?$/.exec(text.trim());
  if (!m) return undefined;
  const [y, mo, d, h, mi, s] = m.slice(1).map((v) => Number(v ?? 0)) as [number, number, number, number, number, number];
  const ms = zone === 'utc' ? Date.UTC(y, mo - 1, d, h, mi, s) : new Date(y, mo - 1, d, h, mi, s).getTime();
  return Number.isNaN(ms) ? undefined : ms;
}

/** Offset of the local zone at a moment, as `UTC+02:00`. */
export function zoneName(ms: number, zone: Zone): string {
  if (zone === 'utc') return 'UTC';
  const offset = -new Date(ms).getTimezoneOffset();
  const size = Math.abs(offset);
  return `UTC${offset < 0 ? '-' : '+'}${pad(Math.floor(size / 60))}:${pad(size % 60)}`;
}

/** Milliseconds of an RFC 3339 time; undefined for Go's zero time and for nonsense. */
export function rfc3339(text: string | undefined): number | undefined {
  if (!text || text.startsWith('0001-01-01')) return undefined;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}

/** Label sets as PromQL text. Values come from outside: they are quoted here and rendered as text everywhere. */

export type LabelSet = Readonly<Record<string, string>>;

const plainName = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const plainMetric = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;

/** A PromQL string literal. */
export function quote(value: string): string {
  return `"${value.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n').replace(/\r/g, '\\r').replace(/\t/g, '\\t')}"`;
}

/** A label name where a matcher may stand; names outside the classic alphabet are quoted. */
export const labelName = (name: string): string => (plainName.test(name) ? name : quote(name));

/** `name{a="b"}` as Prometheus writes series. */
export function seriesName(metric: LabelSet): string {
  const name = metric['__name__'] ?? '';
  const labels = Object.keys(metric)
    .filter((k) => k !== '__name__')
    .sort()
    .map((k) => `${labelName(k)}=${quote(metric[k] ?? '')}`);
  if (name !== '' && !plainMetric.test(name)) return `{${[quote(name), ...labels].join(', ')}}`;
  if (labels.length === 0) return name === '' ? '{}' : name;
  return `${name}{${labels.join(', ')}}`;
}

/** Escapes RE2 metacharacters, for `=~` on literal values. */
export const regexEscape = (value: string): string => value.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');

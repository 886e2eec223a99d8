/** Query results as columns a chart can draw. Pure. */
import type { MatrixItem } from '../api/types';
import type { LabelSet } from '../format/labels';
import { sampleValue } from '../format/number';

/** A value per grid point; null where nothing was stored or the value cannot be drawn (NaN, infinities). */
export type Values = (number | null)[];

export interface ChartSeries {
  readonly name: string;
  /** Index into the palette; stays with the series while others are hidden. */
  readonly color: number;
  readonly values: Values;
  readonly dashed?: boolean;
  /** Not part of a stack, no fill: an objective, a limit. */
  readonly reference?: boolean;
  readonly labels?: LabelSet;
}

/** Grid of a range query, in seconds, both ends included. */
export function grid(start: number, end: number, step: number): number[] {
  const out: number[] = [];
  const n = Math.floor((end - start) / step + 1e-9);
  for (let i = 0; i <= n; i++) out.push(Number((start + i * step).toFixed(3)));
  return out;
}

export function onGrid(item: MatrixItem, start: number, step: number, size: number): Values {
  const values: Values = new Array(size).fill(null);
  for (const [t, text] of item.values ?? []) {
    const i = Math.round((t - start) / step);
    const v = sampleValue(text);
    if (i >= 0 && i < size && Number.isFinite(v)) values[i] = v;
  }
  return values;
}

/** Running sums from the first series up; where no series has a value, the sums have none either. */
export function stack(list: readonly Values[]): Values[] {
  const size = list[0]?.length ?? 0;
  const sum: Values = new Array(size).fill(null);
  for (const values of list) for (let i = 0; i < size; i++) if (values[i] !== null) sum[i] = 0;
  return list.map((values) => {
    for (let i = 0; i < size; i++) {
      const s = sum[i];
      if (s !== null && s !== undefined) sum[i] = s + (values[i] ?? 0);
    }
    return [...sum];
  });
}

/** Points with no neighbour: lines do not show them, dots do. */
export function isolated(values: ArrayLike<number | null | undefined>): number[] {
  const out: number[] = [];
  for (let i = 0; i < values.length; i++) {
    if (values[i] != null && values[i - 1] == null && values[i + 1] == null) out.push(i);
  }
  return out;
}

/** After a click on a legend entry: isolates it, or shows all again when it stood alone; with `toggle` only that one changes. */
export function nextHidden(hidden: ReadonlySet<number>, size: number, clicked: number, toggle: boolean): Set<number> {
  if (toggle) {
    const next = new Set(hidden);
    if (!next.delete(clicked)) next.add(clicked);
    return next.size === size ? new Set() : next;
  }
  const alone = hidden.size === size - 1 && !hidden.has(clicked);
  if (alone) return new Set();
  const next = new Set<number>();
  for (let i = 0; i < size; i++) if (i !== clicked) next.add(i);
  return next;
}

/** Rows of the overview from an answer of the union query: parsing, sorting, filtering, grouping. Pure; no DOM. */
import type { Alert, MatrixItem, VectorItem } from '../../api/types';
import type { LabelSet } from '../../format/labels';
import { sampleValue } from '../../format/number';
import { type Field, fieldLabel, type KeyLabel, keyLabels, type ReaderLabels } from './query';

/** `over`: lag breaks the objective; `near`: 80 % of it; `none`: no lag or no objective known. */
export type LagState = 'over' | 'near' | 'ok' | 'none';

export interface Row {
  readonly key: string;
  readonly labels: ReaderLabels;
  /** Lower-case text the filter looks in. */
  readonly hay: string;
  ready?: number;
  inFlight?: number;
  inRate?: number;
  outRate?: number;
  lag?: number;
  slo?: number;
  consumers?: number;
  dead?: number;
  /** Seconds until empty at the present rates; Infinity while growing; undefined when unknown. */
  drain?: number;
  lagState: LagState;
  firing: number;
  pending: number;
  alertNames: string[];
}

export interface DownNode {
  readonly labels: LabelSet;
}
export interface Overview {
  rows: Row[];
  nodesDown: DownNode[];
  /** Nodes and targets that report `queue_up` at all. */
  nodes: number;
}

export function readerLabels(metric: LabelSet): ReaderLabels {
  const labels = {} as Record<KeyLabel, string>;
  for (const k of keyLabels) labels[k] = metric[k] ?? '';
  return labels;
}

export const rowKey = (metric: LabelSet): string => keyLabels.map((k) => metric[k] ?? '').join('\u0000');

const target: Partial<Record<Field, 'ready' | 'inFlight' | 'inRate' | 'outRate' | 'lag' | 'slo' | 'consumers' | 'dead'>> = {
  ready: 'ready',
  in_flight: 'inFlight',
  in_rate: 'inRate',
  out_rate: 'outRate',
  lag: 'lag',
  slo: 'slo',
  consumers: 'consumers',
  dead: 'dead',
};

export function timeToDrain(ready: number | undefined, inRate: number | undefined, outRate: number | undefined): number | undefined {
  if (ready === undefined || Number.isNaN(ready)) return undefined;
  if (ready === 0) return 0;
  if (inRate === undefined || outRate === undefined || Number.isNaN(inRate) || Number.isNaN(outRate)) return undefined;
  return outRate > inRate ? ready / (outRate - inRate) : Number.POSITIVE_INFINITY;
}

export function lagState(lag: number | undefined, slo: number | undefined): LagState {
  if (lag === undefined || slo === undefined || Number.isNaN(lag) || Number.isNaN(slo)) return 'none';
  if (lag > slo) return 'over';
  return lag > 0.8 * slo ? 'near' : 'ok';
}

export function parseOverview(items: readonly VectorItem[]): Overview {
  const rows = new Map<string, Row>();
  const nodesDown: DownNode[] = [];
  let nodes = 0;
  for (const { metric, value } of items) {
    if (!value) continue;
    const field = metric[fieldLabel] as Field | undefined;
    const number = sampleValue(value[1]);
    if (field === 'nodes_down') {
      nodes += 1;
      if (number > 0) {
        const { [fieldLabel]: _, ...labels } = metric;
        nodesDown.push({ labels });
      }
      continue;
    }
    const property = field && target[field];
    if (!property) continue;
    const key = rowKey(metric);
    let row = rows.get(key);
    if (!row) {
      const labels = readerLabels(metric);
      const hay = keyLabels
        .map((k) => labels[k])
        .join('\n')
        .toLowerCase();
      row = { key, labels, hay, lagState: 'none', firing: 0, pending: 0, alertNames: [] };
      rows.set(key, row);
    }
    row[property] = number;
  }
  const list: Row[] = [];
  for (const row of rows.values()) {
    // An objective alone is configuration, not a queue.
    if (
      row.ready === undefined &&
      row.dead === undefined &&
      row.lag === undefined &&
      row.consumers === undefined &&
      row.inFlight === undefined
    )
      continue;
    const drain = timeToDrain(row.ready, row.inRate, row.outRate);
    if (drain !== undefined) row.drain = drain;
    row.lagState = lagState(row.lag, row.slo);
    list.push(row);
  }
  return { rows: list, nodesDown, nodes };
}

/** Does an alert speak of this reader? Every key label it carries must agree; one without `queue` speaks of no queue. */
export function concerns(alert: LabelSet, labels: ReaderLabels): boolean {
  if (!alert['queue']) return false;
  return keyLabels.every((k) => alert[k] === undefined || alert[k] === '' || alert[k] === labels[k]);
}

/** The rows with the alerts that concern them: new objects, for views compare rows by identity. */
export function withAlerts(rows: readonly Row[], alerts: readonly Alert[]): Row[] {
  const byQueue = new Map<string, Alert[]>();
  for (const alert of alerts) {
    const queue = alert.labels['queue'];
    if (!queue || (alert.state !== 'firing' && alert.state !== 'pending')) continue;
    const list = byQueue.get(queue);
    if (list) list.push(alert);
    else byQueue.set(queue, [alert]);
  }
  return rows.map((row) => {
    const own = (byQueue.get(row.labels.queue) ?? []).filter((alert) => concerns(alert.labels, row.labels));
    const firing = own.filter((alert) => alert.state === 'firing').length;
    return { ...row, firing, pending: own.length - firing, alertNames: own.map((a) => `${a.labels['alertname'] ?? 'alert'} (${a.state})`) };
  });
}

export const sortColumns = [
  'alerts',
  'system',
  'queue',
  'group',
  'ready',
  'in_flight',
  'in',
  'out',
  'lag',
  'drain',
  'consumers',
  'dead',
] as const;
export type SortColumn = (typeof sortColumns)[number];
export interface Sort {
  column: SortColumn;
  descending: boolean;
}
/** Worst first. */
export const defaultSort: Sort = { column: 'lag', descending: true };

export function parseSort(text: string | null): Sort {
  if (!text) return defaultSort;
  const descending = text.startsWith('-');
  const column = sortColumns.find((c) => c === (descending ? text.slice(1) : text));
  return column ? { column, descending } : defaultSort;
}
export const formatSort = (sort: Sort): string => (sort.descending ? '-' : '') + sort.column;

const numeric: Partial<Record<SortColumn, (r: Row) => number | undefined>> = {
  alerts: (r) => r.firing * 1000 + r.pending,
  ready: (r) => r.ready,
  in_flight: (r) => r.inFlight,
  in: (r) => r.inRate,
  out: (r) => r.outRate,
  lag: (r) => r.lag,
  drain: (r) => r.drain,
  consumers: (r) => r.consumers,
  dead: (r) => r.dead,
};
const collator = new Intl.Collator('en', { numeric: true });

/** Unknown values come last whichever way it is sorted; equal ones are in queue, group, key order. */
export function sortRows(rows: readonly Row[], sort: Sort): Row[] {
  const sign = sort.descending ? -1 : 1;
  const names = rankNames(rows);
  const tie = (a: Row, b: Row) => (names.get(a.key) ?? 0) - (names.get(b.key) ?? 0);
  const pick = numeric[sort.column];
  if (pick) {
    return [...rows].sort((a, b) => {
      const x = pick(a);
      const y = pick(b);
      if (x === y) return tie(a, b);
      if (x === undefined || Number.isNaN(x)) return 1;
      if (y === undefined || Number.isNaN(y)) return -1;
      return x < y ? -sign : x > y ? sign : tie(a, b);
    });
  }
  if (sort.column === 'queue') return [...rows].sort((a, b) => sign * tie(a, b));
  const label = sort.column as 'system' | 'group';
  return [...rows].sort((a, b) => {
    const x = a.labels[label];
    const y = b.labels[label];
    if (x === y) return tie(a, b);
    if (x === '') return 1;
    if (y === '') return -1;
    return sign * collator.compare(x, y);
  });
}

// Collation costs about a microsecond a comparison; the order by name is computed once for a set of rows, not once for each sort.
let ranked: { size: number; ranks: Map<string, number> } = { size: -1, ranks: new Map() };
function rankNames(rows: readonly Row[]): Map<string, number> {
  if (ranked.size >= rows.length && rows.every((r) => ranked.ranks.has(r.key))) return ranked.ranks;
  const order = [...rows].sort(
    (a, b) =>
      collator.compare(a.labels.queue, b.labels.queue) || collator.compare(a.labels.group, b.labels.group) || (a.key < b.key ? -1 : 1),
  );
  ranked = { size: rows.length, ranks: new Map(order.map((r, i) => [r.key, i])) };
  return ranked.ranks;
}

/** Every word must occur somewhere in the labels. */
export function filterRows(rows: readonly Row[], text: string): Row[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return [...rows];
  return rows.filter((r) => words.every((w) => r.hay.includes(w)));
}

export const groupings = ['system', 'vhost', 'cluster'] as const;
export type Grouping = (typeof groupings)[number];
export interface Section {
  name: string;
  rows: Row[];
  ready: number;
  over: number;
  firing: number;
}

/** Sections in name order; rows keep their order inside. The key of a vhost or cluster includes the system it belongs to. */
export function groupRows(rows: readonly Row[], by: Grouping): Section[] {
  const sections = new Map<string, Section>();
  for (const row of rows) {
    const own = row.labels[by];
    const name = by === 'system' ? own || 'no system' : `${row.labels.system} · ${own === '' ? `no ${by}` : own}`;
    let s = sections.get(name);
    if (!s) {
      s = { name, rows: [], ready: 0, over: 0, firing: 0 };
      sections.set(name, s);
    }
    s.rows.push(row);
    s.ready += row.ready ?? 0;
    if (row.lagState === 'over') s.over += 1;
    s.firing += row.firing;
  }
  return [...sections.values()].sort((a, b) => collator.compare(a.name, b.name));
}

export interface Totals {
  readers: number;
  over: number;
  ready: number;
  /** Ready by system, largest first. */
  systems: { system: string; ready: number; readers: number }[];
}

export function totals(rows: readonly Row[]): Totals {
  const systems = new Map<string, { system: string; ready: number; readers: number }>();
  let over = 0;
  let ready = 0;
  for (const row of rows) {
    if (row.lagState === 'over') over += 1;
    ready += row.ready ?? 0;
    let s = systems.get(row.labels.system);
    if (!s) {
      s = { system: row.labels.system, ready: 0, readers: 0 };
      systems.set(row.labels.system, s);
    }
    s.ready += row.ready ?? 0;
    s.readers += 1;
  }
  return {
    readers: rows.length,
    over,
    ready,
    systems: [...systems.values()].sort((a, b) => b.ready - a.ready || collator.compare(a.system, b.system)),
  };
}

/** Spark points by row key: values on the grid start, start+step … end; NaN where nothing was stored. */
export function parseSparks(items: readonly MatrixItem[], start: number, end: number, step: number): Map<string, Float64Array> {
  const size = Math.floor((end - start) / step) + 1;
  const out = new Map<string, Float64Array>();
  for (const item of items) {
    const points = new Float64Array(size).fill(Number.NaN);
    for (const [t, v] of item.values ?? []) {
      const i = Math.round((t - start) / step);
      if (i >= 0 && i < size) points[i] = sampleValue(v);
    }
    out.set(rowKey(item.metric), points);
  }
  return out;
}

/** SVG path data in a box of `width` × `height`, from zero to the maximum; gaps stay gaps. */
export function sparkPath(points: ArrayLike<number>, width: number, height: number): { line: string; area: string } {
  let max = 0;
  for (let i = 0; i < points.length; i++) {
    const v = points[i] as number;
    if (Number.isFinite(v) && v > max) max = v;
  }
  const x = (i: number) => ((i * width) / Math.max(1, points.length - 1)).toFixed(1);
  const y = (v: number) => (max === 0 ? height - 1 : height - 1 - (v / max) * (height - 2)).toFixed(1);
  let line = '';
  let area = '';
  let from = -1;
  for (let i = 0; i <= points.length; i++) {
    const v = i < points.length ? (points[i] as number) : Number.NaN;
    if (Number.isFinite(v)) {
      line += `${from < 0 ? 'M' : 'L'}${x(i)} ${y(v)}`;
      if (from < 0) {
        from = i;
        area += `M${x(i)} ${height}`;
      }
      area += `L${x(i)} ${y(v)}`;
    } else if (from >= 0) {
      // A lone point is drawn as a dot by the round line cap.
      if (i - from === 1) line += 'h0.01';
      area += `L${x(i - 1)} ${height}Z`;
      from = -1;
    }
  }
  return { line, area };
}

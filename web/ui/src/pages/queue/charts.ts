/** The standard charts of one reader: what each asks, and how its answer is drawn. Pure. */
import type { MatrixItem } from '../../api/types';
import { type ChartSeries, onGrid } from '../../chart/series';
import { human } from '../../format/duration';
import { count, rate } from '../../format/number';
import { fieldLabel, type ReaderLabels, readerMatchers, shortMatchers, union } from '../overview/query';

interface Line {
  field: string;
  name: string;
  color: number;
  expr: (matchers: string, window: string) => string;
  reference?: boolean;
}

export interface ChartSpec {
  id: string;
  title: string;
  note: string;
  stacked?: boolean;
  filled?: boolean;
  show: (value: number) => string;
  unit: 'number' | 'count' | 'seconds';
  lines: Line[];
  /** Expressions that Explore opens, one panel each. */
  explore: (labels: ReaderLabels) => string[];
}

const sum = (metric: string) => (m: string) => `sum(${metric}{${m}})`;

export const charts: ChartSpec[] = [
  {
    id: 'messages',
    title: 'Messages',
    note: 'waiting, being worked on, not yet due',
    stacked: true,
    show: count,
    unit: 'count',
    lines: [
      { field: 'in_flight', name: 'In flight', color: 2, expr: sum('queue_messages_in_flight') },
      { field: 'ready', name: 'Ready', color: 0, expr: sum('queue_messages_ready') },
      { field: 'delayed', name: 'Delayed', color: 5, expr: sum('queue_messages_delayed') },
      { field: 'dead', name: 'Dead', color: 7, expr: sum('queue_messages_dead') },
    ],
    explore: (l) => [`{__name__=~"queue_messages_(ready|in_flight|delayed|dead)", ${shortMatchers(l)}}`],
  },
  {
    id: 'rates',
    title: 'In and out per second',
    note: 'put in against finished',
    show: rate,
    unit: 'number',
    lines: [
      { field: 'in', name: 'In', color: 1, expr: (m, w) => `sum(rate(queue_messages_enqueued_total{${m}}[${w}]))` },
      { field: 'out', name: 'Out', color: 3, expr: (m, w) => `sum(rate(queue_messages_dequeued_total{${m}}[${w}]))` },
      { field: 'redelivered', name: 'Redelivered', color: 4, expr: (m, w) => `sum(rate(queue_messages_redelivered_total{${m}}[${w}]))` },
    ],
    explore: (l) => [
      `rate(queue_messages_enqueued_total{${shortMatchers(l)}}[5m])`,
      `rate(queue_messages_dequeued_total{${shortMatchers(l)}}[5m])`,
    ],
  },
  {
    id: 'lag',
    title: 'Lag',
    note: 'age of the oldest unfinished message',
    filled: true,
    show: human,
    unit: 'seconds',
    lines: [
      { field: 'lag', name: 'Lag', color: 0, expr: (m) => `max(queue_lag_seconds{${m}})` },
      { field: 'slo', name: 'Objective', color: 7, expr: (m) => `max(queue_slo_lag_seconds{${m}})`, reference: true },
    ],
    explore: (l) => [`queue_lag_seconds{${shortMatchers(l)}}`],
  },
  {
    id: 'consumers',
    title: 'Consumers',
    note: 'readers attached',
    filled: true,
    show: count,
    unit: 'count',
    lines: [{ field: 'consumers', name: 'Consumers', color: 6, expr: sum('queue_consumers') }],
    explore: (l) => [`queue_consumers{${shortMatchers(l)}}`],
  },
];

export function chartExpression(spec: ChartSpec, labels: ReaderLabels, window: string): string {
  const m = readerMatchers(labels);
  return union(Object.fromEntries(spec.lines.map((l) => [l.field, l.expr(m, window)])));
}

/** Lines in the order of the chart; those without any data are left out. */
export function chartSeries(spec: ChartSpec, items: readonly MatrixItem[], start: number, step: number, size: number): ChartSeries[] {
  return spec.lines.flatMap((line): ChartSeries[] => {
    const item = items.find((i) => i.metric[fieldLabel] === line.field);
    if (!item) return [];
    const values = onGrid(item, start, step, size);
    // A band of zeros in a stack says nothing and takes a place in the legend.
    if (spec.stacked && line.field !== 'ready' && values.every((v) => v === null || v === 0)) return [];
    return [{ name: line.name, color: line.color, values, ...(line.reference ? { reference: true, dashed: true } : {}) }];
  });
}

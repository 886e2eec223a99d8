/**
 * The expressions behind the overview and the queue page. They read raw metrics of the common queue schema, so they hold
 * before any rule was evaluated. A field of a row is one arm of a union, told apart by the label `nm_field`: one request,
 * one evaluation time for the whole table.
 */
import { labelName, quote, regexEscape } from '../../format/labels';

/** What makes a reader of a queue: one row. An absent label equals an empty one. */
export const keyLabels = ['job', 'system', 'cluster', 'vhost', 'queue', 'group'] as const;
export type KeyLabel = (typeof keyLabels)[number];
export type ReaderLabels = Readonly<Record<KeyLabel, string>>;

const by = `by (${keyLabels.join(', ')})`;
export const fieldLabel = 'nm_field';

/** Expressions of a row's fields; `m` is a selector in braces or nothing. */
const readerFields = (m: string) => ({
  ready: `sum ${by} (queue_messages_ready${m})`,
  in_flight: `sum ${by} (queue_messages_in_flight${m})`,
  in_rate: `sum ${by} (rate(queue_messages_enqueued_total${m}[5m]))`,
  out_rate: `sum ${by} (rate(queue_messages_dequeued_total${m}[5m]))`,
  lag: `max ${by} (queue_lag_seconds${m})`,
  slo: `max ${by} (queue_slo_lag_seconds${m})`,
  consumers: `sum ${by} (queue_consumers${m})`,
  dead: `sum ${by} (queue_messages_dead${m})`,
});
export type Field = keyof ReturnType<typeof readerFields> | 'nodes_down';

export const union = (arms: Record<string, string>): string =>
  Object.entries(arms)
    .map(([name, expr]) => `label_replace(${expr}, ${quote(fieldLabel)}, ${quote(name)}, "", "")`)
    .join('\nor\n');

/** Every reader, and every node with 1 when it is down. */
export const overviewExpression = union({
  ...readerFields(''),
  nodes_down: 'sum by (job, system, cluster, instance, node) (queue_up == bool 0)',
});

/** The same fields of one reader. */
export const overviewFor = (labels: ReaderLabels): string => union(readerFields(`{${readerMatchers(labels)}}`));

/** Ready over time; with `queues` only of those names. */
export function sparkExpression(queues?: readonly string[]): string {
  if (!queues) return readerFields('').ready;
  const pattern = queues.map(regexEscape).join('|');
  return readerFields(`{queue=~${quote(pattern)}}`).ready;
}

/** Matchers for exactly one reader: `a="x", b=""` (empty matches absent). */
export function readerMatchers(labels: ReaderLabels): string {
  return keyLabels.map((k) => `${labelName(k)}=${quote(labels[k])}`).join(', ');
}

/** As `readerMatchers`, without the empty ones: for expressions people read. */
export function shortMatchers(labels: ReaderLabels): string {
  return keyLabels
    .filter((k) => labels[k] !== '')
    .map((k) => `${labelName(k)}=${quote(labels[k])}`)
    .join(', ');
}

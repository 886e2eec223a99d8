import { now } from '../api/clock';
import { human } from '../format/duration';
import { dateTime, zoneName } from '../format/time';
import { zone } from '../settings';

/** How long ago, with the moment itself in the title and for machines. */
export function Ago({ ms }: { ms: number | undefined }) {
  if (ms === undefined) return <span class="muted">never</span>;
  const z = zone.value;
  const seconds = Math.max(0, (now() - ms) / 1000);
  return (
    <time dateTime={new Date(ms).toISOString()} title={`${dateTime(ms, z)} ${zoneName(ms, z)}`}>
      {seconds < 1 ? 'just now' : `${human(seconds)} ago`}
    </time>
  );
}

export function Moment({ ms }: { ms: number | undefined }) {
  if (ms === undefined) return <span class="muted">never</span>;
  const z = zone.value;
  return (
    <time dateTime={new Date(ms).toISOString()} title={zoneName(ms, z)}>
      {dateTime(ms, z)}
    </time>
  );
}

import { connection } from '../api/client';
import { clock } from '../format/time';
import { zone } from '../settings';
import { Icon } from './icons';

/** Shown while the server is away; the pages keep their last data and resume by themselves. */
export function Banner() {
  const c = connection.value;
  return (
    <div role="status" aria-live="polite">
      {c.up ? null : (
        <div class="banner">
          <Icon name="warn" />
          <span>
            <strong>The server does not answer</strong> since {clock(c.since, zone.value)} ({c.reason}). What you see is the last known
            state; this page resumes by itself.
          </span>
        </div>
      )}
    </div>
  );
}

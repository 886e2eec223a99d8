/** States as icon, word and colour together: colour alone never carries the meaning. */
import type { ComponentChildren } from 'preact';
import { Icon, type IconName } from './icons';

export type Tone = 'ok' | 'warn' | 'bad' | 'info' | 'quiet';
const icons: Record<Tone, IconName> = { ok: 'ok', warn: 'pending', bad: 'fire', info: 'dot', quiet: 'dot' };

export function Badge({ tone, icon, children, title }: { tone: Tone; icon?: IconName; children: ComponentChildren; title?: string }) {
  return (
    <span class={`badge ${tone}`} title={title}>
      <Icon name={icon ?? icons[tone]} />
      <span>{children}</span>
    </span>
  );
}

export const alertTone = (state: string): Tone =>
  state === 'firing' ? 'bad' : state === 'pending' ? 'warn' : state === 'inactive' ? 'ok' : 'quiet';

/** Label pairs as chips; values are text nodes. */
export function Labels({ labels, skip = [] }: { labels: Readonly<Record<string, string>>; skip?: readonly string[] }) {
  const names = Object.keys(labels)
    .filter((n) => !skip.includes(n))
    .sort();
  return (
    <span class="labels">
      {names.map((n) => (
        <span key={n} class="label">
          <span class="label-name">{n}</span>
          <span class="label-eq">=</span>
          <span class="label-value">{labels[n] === '' ? '""' : labels[n]}</span>
        </span>
      ))}
    </span>
  );
}

/** What a panel shows when it has no data (yet): skeleton, error, emptiness. */
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { ApiError, OfflineError } from '../api/client';
import { Icon } from './icons';

/** Grey bars; CSS keeps them invisible for the first 150 ms, so fast answers do not flicker. */
export function Skeleton({ rows = 5 }: { rows?: number }) {
  return (
    <div class="skeleton" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, i) => (
        <span key={i} class={`bone bone-${i % 4}`} />
      ))}
    </div>
  );
}

/** The server's own text, with a way to take it along. */
export function ErrorBox({ error, context }: { error: Error; context?: string }) {
  // The banner speaks for the whole page then.
  if (error instanceof OfflineError) {
    return <div class="note">Waiting for the server.</div>;
  }
  const kind = error instanceof ApiError ? error.errorType : 'error';
  const text = error.message;
  return (
    <div class="alertbox" role="alert">
      <Icon name="fire" />
      <div class="alertbox-text">
        <strong>{kind.replace(/_/g, ' ')}</strong>
        <pre>{text}</pre>
      </div>
      <CopyButton text={context ? `${context}\n${kind}: ${text}` : `${kind}: ${text}`} />
    </div>
  );
}

export function CopyButton({ text, label = 'Copy' }: { text: string; label?: string }) {
  const [done, setDone] = useState<string | undefined>();
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone('Copied');
    } catch {
      // Plain http on a name other than localhost has no clipboard API.
      setDone(copyByHand(text) ? 'Copied' : 'Could not copy');
    }
    setTimeout(() => setDone(undefined), 1500);
  };
  return (
    <button type="button" class="button small" onClick={() => void copy()}>
      <Icon name={done === 'Copied' ? 'ok' : 'copy'} />
      <span aria-live="polite">{done ?? label}</span>
    </button>
  );
}

function copyByHand(text: string): boolean {
  const area = document.createElement('textarea');
  area.value = text;
  area.className = 'offscreen';
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  return done;
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

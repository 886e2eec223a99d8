/**
 * Data of a page: loads when its key changes (aborting the load before), again on every refresh tick, never twice at once.
 * Ticks stop while the tab is hidden or the server is away; both coming back triggers one.
 */
import { effect, signal, untracked } from '@preact/signals';
import { useEffect, useRef, useState } from 'preact/hooks';
import { refreshSeconds } from '../settings';
import { begin, end } from '../settled';
import { connection, isAbort, onReconnect } from './client';

const tick = signal({ n: 0, forced: false });

/** Reload everything on the page now. */
export function refreshNow(): void {
  tick.value = { n: tick.value.n + 1, forced: true };
}

export function startRefresh(): void {
  let timer: ReturnType<typeof setInterval> | undefined;
  let last = Date.now();
  const beat = () => {
    if (document.hidden || !connection.value.up) return;
    last = Date.now();
    tick.value = { n: untracked(() => tick.value.n) + 1, forced: false };
  };
  effect(() => {
    clearInterval(timer);
    if (refreshSeconds.value > 0) timer = setInterval(beat, refreshSeconds.value * 1000);
  });
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden && refreshSeconds.value > 0 && Date.now() - last >= refreshSeconds.value * 1000) beat();
  });
  onReconnect(refreshNow);
}

export interface Resource<T> {
  data: T | undefined;
  error: Error | undefined;
  /** A load is under way. */
  loading: boolean;
  /** `data` belongs to an earlier key. */
  stale: boolean;
  /** When `data` arrived; 0 before. */
  at: number;
  cancel(): void;
  reload(): void;
}

interface State<T> {
  data: T | undefined;
  error: Error | undefined;
  loading: boolean;
  key: string | null;
  at: number;
}

/** `key` null: nothing to load. `everySeconds`: do not follow ticks more often; Infinity: follow no ticks but the forced. */
export function useResource<T>(key: string | null, load: (signal: AbortSignal) => Promise<T>, everySeconds = 0): Resource<T> {
  const [state, setState] = useState<State<T>>({ data: undefined, error: undefined, loading: key !== null, key: null, at: 0 });
  const loader = useRef(load);
  loader.current = load;
  const running = useRef<AbortController | undefined>(undefined);
  const startedAt = useRef(0);

  const start = (forKey: string) => {
    running.current?.abort();
    const controller = new AbortController();
    running.current = controller;
    startedAt.current = Date.now();
    setState((s) => ({ ...s, loading: true }));
    begin();
    loader
      .current(controller.signal)
      .then(
        (data) => {
          if (running.current === controller) setState({ data, error: undefined, loading: false, key: forKey, at: Date.now() });
        },
        (error: unknown) => {
          if (running.current !== controller || isAbort(error)) return;
          // The last good data stays beside the error, greyed, if it answers the same question.
          setState((s) => ({
            ...s,
            data: s.key === forKey ? s.data : undefined,
            error: error instanceof Error ? error : new Error(String(error)),
            loading: false,
            key: forKey,
          }));
        },
      )
      .finally(() => {
        if (running.current === controller) running.current = undefined;
        end();
      });
  };

  useEffect(() => {
    if (key === null) {
      setState({ data: undefined, error: undefined, loading: false, key: null, at: 0 });
      return;
    }
    start(key);
    return () => {
      running.current?.abort();
      running.current = undefined;
    };
  }, [key]);

  useEffect(() => {
    let first = true;
    return effect(() => {
      const { forced } = tick.value;
      if (first) {
        first = false;
        return;
      }
      if (key === null || running.current) return;
      // Half a second of slack: timers are not exact, and a skipped tick doubles the interval.
      if (!forced && Date.now() - startedAt.current < everySeconds * 1000 - 500) return;
      untracked(() => start(key));
    });
  }, [key, everySeconds]);

  return {
    data: state.data,
    error: state.error,
    loading: state.loading,
    stale: state.data !== undefined && state.key !== key,
    at: state.at,
    cancel: () => {
      running.current?.abort();
      running.current = undefined;
      setState((s) => ({ ...s, loading: false }));
    },
    reload: () => {
      if (key !== null) start(key);
    },
  };
}

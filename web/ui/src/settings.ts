/** What the reader chose: theme, zone, refresh interval. Kept in local storage when the browser allows it. */
import { effect, type Signal, signal } from '@preact/signals';
import type { Zone } from './format/time';

export type Theme = 'auto' | 'light' | 'dark';
export const refreshChoices = [0, 5, 10, 30, 60] as const;

function stored<T extends string | number>(name: string, choices: readonly T[], fallback: T): Signal<T> {
  const key = `nilometer.${name}`;
  let start = fallback;
  try {
    const text = localStorage.getItem(key);
    start = choices.find((c) => String(c) === text) ?? fallback;
  } catch {
    // Storage may be forbidden; the default then holds for this page.
  }
  const value = signal<T>(start);
  effect(() => {
    const text = String(value.value);
    try {
      localStorage.setItem(key, text);
    } catch {
      // As above.
    }
  });
  return value;
}

export const theme = stored<Theme>('theme', ['auto', 'light', 'dark'], 'auto');
export const zone = stored<Zone>('zone', ['local', 'utc'], 'local');
/** Seconds between refreshes; 0 is off. */
export const refreshSeconds = stored<number>('refresh', refreshChoices, 10);

const darkSystem = matchMedia('(prefers-color-scheme: dark)');
/** The theme in effect, for what CSS cannot reach (canvas colours). */
export const dark = signal(false);

export function startTheme(): void {
  const apply = () => {
    dark.value = theme.value === 'auto' ? darkSystem.matches : theme.value === 'dark';
    document.documentElement.dataset['theme'] = dark.value ? 'dark' : 'light';
  };
  effect(apply);
  darkSystem.addEventListener('change', apply);
}

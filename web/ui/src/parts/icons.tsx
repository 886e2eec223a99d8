/** Small line icons, drawn here so that no icon font or outside file is needed. All are decoration: text stands beside them. */

const shapes = {
  ok: 'M3 8.5 6.5 12 13 4.5',
  warn: 'M8 2 14.5 13.5H1.5zM8 6.5v3.2M8 11.6v.3',
  fire: 'M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM8 4.5v4.2M8 11v.3',
  pending: 'M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM8 4.5V8l2.5 1.5',
  down: 'M8 3v10M4 9l4 4 4-4',
  up: 'M8 13V3M4 7l4-4 4 4',
  chevron: 'M6 3.5 10.5 8 6 12.5',
  close: 'M3.5 3.5l9 9M12.5 3.5l-9 9',
  plus: 'M8 3v10M3 8h10',
  minus: 'M3 8h10',
  refresh: 'M13.5 8a5.5 5.5 0 1 1-1.7-4M13.5 1.8V4.5h-2.7',
  sun: 'M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1',
  moon: 'M13.5 9.5A5.8 5.8 0 0 1 6.5 2.5a5.8 5.8 0 1 0 7 7z',
  auto: 'M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM8 1.5v13M8 4h3.5M8 7h5.5M8 10h5M8 13h2',
  link: 'M6 3H3v10h10v-3M9 2.5h4.5V7M13 3 7.5 8.5',
  search: 'M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.5 10.5 14 14',
  copy: 'M5.5 5.5h8v8h-8zM3 10.5h-.5v-8h8V3',
  dot: 'M8 6a2 2 0 1 0 0 4 2 2 0 0 0 0-4z',
} as const;

export type IconName = keyof typeof shapes;

export function Icon({ name, class: extra }: { name: IconName; class?: string }) {
  return (
    <svg class={extra ? `icon ${extra}` : 'icon'} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={shapes[name]} />
    </svg>
  );
}

/** A nilometer: the measuring column in the water. */
export function Logo() {
  return (
    <svg class="logo" viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <rect class="logo-ground" width="32" height="32" rx="7" />
      <path class="logo-water" d="M4 21c2.7-2.4 5.3-2.4 8 0s5.3 2.4 8 0 5.3-2.4 8 0v5a3 3 0 0 1-3 3H7a3 3 0 0 1-3-3z" />
      <path class="logo-column" d="M10 5h12v3h-1.5v18h-9V8H10z" />
      <path class="logo-marks" d="M14.5 11.5h5M14.5 15h3M14.5 18.5h5M14.5 22h3" />
    </svg>
  );
}

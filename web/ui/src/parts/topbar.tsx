import { refreshNow } from '../api/resource';
import { href } from '../router';
import { refreshChoices, refreshSeconds, type Theme, theme, zone } from '../settings';
import { Icon, type IconName, Logo } from './icons';

const entries = [
  ['/', 'Overview'],
  ['/explore', 'Explore'],
  ['/alerts', 'Alerts'],
  ['/targets', 'Targets'],
  ['/status', 'Status'],
] as const;

const nextTheme: Record<Theme, Theme> = { auto: 'light', light: 'dark', dark: 'auto' };
const themeIcon: Record<Theme, IconName> = { auto: 'auto', light: 'sun', dark: 'moon' };
const themeName: Record<Theme, string> = { auto: 'as the system', light: 'light', dark: 'dark' };

export function TopBar({ path }: { path: string }) {
  return (
    <header class="topbar">
      <a class="brand" href={href('/')} aria-label="Nilometer, overview">
        <Logo />
        <span>Nilometer</span>
      </a>
      <nav aria-label="Pages">
        {entries.map(([to, name]) => {
          const current = to === path || (to === '/' && path === '/queue');
          return (
            <a key={to} href={href(to)} aria-current={current ? 'page' : undefined}>
              {name}
            </a>
          );
        })}
      </nav>
      <div class="topbar-tools">
        <label class="field" title="How often the page asks for new data">
          <span class="field-name">Refresh</span>
          <select
            value={String(refreshSeconds.value)}
            onChange={(e) => {
              refreshSeconds.value = Number(e.currentTarget.value);
            }}
          >
            {refreshChoices.map((s) => (
              <option key={s} value={String(s)}>
                {s === 0 ? 'Off' : s < 60 ? `${s}s` : `${s / 60}m`}
              </option>
            ))}
          </select>
        </label>
        <button type="button" class="button icon-only" onClick={refreshNow} aria-label="Refresh now" title="Refresh now">
          <Icon name="refresh" />
        </button>
        <button
          type="button"
          class="button zone"
          aria-label={`Times are shown in ${zone.value === 'utc' ? 'UTC' : 'local time'}; switch`}
          title="Switch between local time and UTC"
          onClick={() => {
            zone.value = zone.value === 'utc' ? 'local' : 'utc';
          }}
        >
          {zone.value === 'utc' ? 'UTC' : 'Local'}
        </button>
        <button
          type="button"
          class="button icon-only"
          aria-label={`Theme: ${themeName[theme.value]}; switch to ${themeName[nextTheme[theme.value]]}`}
          title={`Theme: ${themeName[theme.value]}`}
          onClick={() => {
            theme.value = nextTheme[theme.value];
          }}
        >
          <Icon name={themeIcon[theme.value]} />
        </button>
      </div>
    </header>
  );
}

const known: Record<string, string> = {
  GOGC: 'GOGC',
  GOMAXPROCS: 'GOMAXPROCS',
  GOMEMLIMIT: 'GOMEMLIMIT',
  GODEBUG: 'GODEBUG',
  CWD: 'Working directory',
};

/** `lastConfigTime` → `Last config time`; names the server writes in capitals stay. */
export function words(name: string): string {
  const fixed = known[name];
  if (fixed) return fixed;
  const split = name
    .replace(/([a-z0-9])([A-Z])/g, '$1 $2')
    .replace(/_/g, ' ')
    .toLowerCase();
  return split.charAt(0).toUpperCase() + split.slice(1);
}

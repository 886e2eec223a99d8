import { describe, expect, it } from 'vitest';
import { format, human, parse } from '../src/format/duration';
import { quote, regexEscape, seriesName } from '../src/format/labels';
import { bytes, compact, count, rate, sampleValue, UNKNOWN } from '../src/format/number';
import { dateTime, parseDateTime, rfc3339 } from '../src/format/time';

describe('numbers', () => {
  it('are exact while short, then compact', () => {
    expect([0, 7, 99_999, 100_000, 1_234_567, undefined, Number.NaN].map(count)).toEqual([
      '0',
      '7',
      '99,999',
      '100k',
      '1.23M',
      UNKNOWN,
      UNKNOWN,
    ]);
  });
  it('never print a thousand thousands', () => {
    expect(compact(999_950)).toBe('1M');
    expect(compact(-1500)).toBe('-1.5k');
    expect(compact(0.00012)).toBe('1.2e-4');
    expect(compact(Number.POSITIVE_INFINITY)).toBe('∞');
  });
  it('show small rates as small, not as zero', () => {
    expect([0, 0.001, 0.03, 3.456, 42.123, 870.4, 12_345].map(rate)).toEqual(['0', '<0.01', '0.03', '3.46', '42.1', '870', '12.3k']);
  });
  it('read what the API writes', () => {
    expect(['+Inf', '-Inf', '1.5', '3e+02'].map(sampleValue)).toEqual([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1.5, 300]);
    expect(sampleValue('NaN')).toBeNaN();
  });
  it('bytes are binary', () => expect([512, 1024, 1_572_864].map(bytes)).toEqual(['512 B', '1 KiB', '1.5 MiB']));
});

describe('durations', () => {
  it('have two units at most', () => {
    expect([0, 0.0004, 0.35, 4.24, 9.99, 59, 65, 3600, 7380, 93_600, undefined, Number.POSITIVE_INFINITY].map(human)).toEqual([
      '0s',
      '<1ms',
      '350ms',
      '4.2s',
      '10s',
      '59s',
      '1m 5s',
      '1h',
      '2h 3m',
      '1d 2h',
      UNKNOWN,
      '∞',
    ]);
  });
  it('parse and print in the form of Prometheus', () => {
    for (const text of ['1h30m', '15s', '250ms', '2d', '1h', '3w', '1y']) expect(format(parse(text) ?? -1)).toBe(text);
    expect(parse('1m30')).toBeUndefined();
    expect(parse('30m1h')).toBeUndefined();
    expect(parse('')).toBeUndefined();
    expect(format(8 * 86_400_000)).toBe('8d');
  });
});

describe('times', () => {
  it('round trip in both zones', () => {
    const ms = Date.UTC(2026, 10, 22, 18, 4, 5);
    expect(dateTime(ms, 'utc')).toBe('2026-11-22 18:04:05');
    for (const z of ['utc', 'local'] as const) expect(parseDateTime(dateTime(ms, z), z)).toBe(ms);
    expect(parseDateTime('2026-11-22', 'utc')).toBe(Date.UTC(2026, 10, 22));
    expect(parseDateTime('yesterday', 'utc')).toBeUndefined();
  });
  it("Go's zero time is never", () => expect(rfc3339('0001-01-01T00:00:00Z')).toBeUndefined());
});

describe('labels', () => {
  it('quote what is hostile', () => {
    expect(quote('a"b\\c\nd')).toBe('"a\\"b\\\\c\\nd"');
    expect(regexEscape('a.b|c(d)')).toBe('a\\.b\\|c\\(d\\)');
  });
  it('print series as PromQL reads them', () => {
    expect(seriesName({ __name__: 'up', job: 'x' })).toBe('up{job="x"}');
    expect(seriesName({ __name__: 'up' })).toBe('up');
    expect(seriesName({})).toBe('{}');
    expect(seriesName({ __name__: 'queue.size', 'net.host': 'a' })).toBe('{"queue.size", "net.host"="a"}');
  });
});

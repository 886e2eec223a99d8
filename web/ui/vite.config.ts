import { defineConfig } from 'vite';

const pageOf = (module: string | null | undefined) => /\/pages\/(\w+)\/page\.tsx$/.exec(module ?? '')?.[1];

// Relative asset URLs: the server may live below any path prefix. No inlined assets: the CSP forbids data: URLs.
export default defineConfig({
  base: './',
  publicDir: false,
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 400,
    rolldownOptions: {
      output: { chunkFileNames: (chunk) => `assets/${pageOf(chunk.facadeModuleId) ?? '[name]'}-[hash].js` },
    },
  },
});

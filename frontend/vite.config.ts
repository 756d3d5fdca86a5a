// The page /react/: the development server, and the files in static/react that sites without it serve.
//
// Environment, for tests and unusual machines:
// - DJANGO: where the site is, http://127.0.0.1:8000 by default;
// - VITE_FILE: the file that tells Django where this server is, var/vite.json by default;
// - CHANGE_ORIGIN=1: the proxy replaces the Host, as many examples for Vite do. Django then takes pages of this server
//   for those of another site, which ALLOWED_ORIGINS and CSRF_TRUSTED_ORIGINS have to name.

import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";

import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

const ROOT = resolve(import.meta.dirname, "..");
const { DJANGO = "http://127.0.0.1:8000", CHANGE_ORIGIN, VITE_FILE = resolve(ROOT, "var/vite.json") } = process.env;
const BASE = "/vite/"; // all paths of this server: everything else is Django's

/** Tells Django where this server is, as long as it runs. */
function announce(file: string): Plugin {
  return {
    name: "announce",
    apply: "serve",
    configureServer(server) {
      const remove = () => rmSync(file, { force: true });
      server.httpServer?.once("listening", () => {
        const address = server.httpServer?.address();
        if (!address || typeof address === "string") return;
        mkdirSync(dirname(file), { recursive: true });
        writeFileSync(file, JSON.stringify({ origin: `http://localhost:${address.port}`, base: BASE }));
      });
      server.httpServer?.once("close", remove);
      process.once("exit", remove);
    },
  };
}

export default defineConfig(({ command }) => ({
  root: import.meta.dirname,
  base: command === "serve" ? BASE : "/static/react/",
  cacheDir: resolve(ROOT, "var/vite"),
  plugins: [react(), announce(VITE_FILE)],
  server: {
    proxy: { [`^/(?!${BASE.slice(1)})`]: { target: DJANGO, ws: true, changeOrigin: Boolean(CHANGE_ORIGIN) } },
    fs: { allow: [ROOT] },
  },
  build: {
    outDir: resolve(ROOT, "static/react"),
    emptyOutDir: true,
    modulePreload: false,
    license: { fileName: "licenses.md" }, // of React, which is in the file
    rolldownOptions: {
      input: resolve(import.meta.dirname, "src/main.tsx"),
      // Without hashes: Django adds its own when it collects static files, and the history of git stays readable.
      output: { entryFileNames: "main.js", assetFileNames: "main[extname]", codeSplitting: false },
    },
  },
}));

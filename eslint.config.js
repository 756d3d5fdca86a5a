import js from "@eslint/js";
import globals from "globals";

const BROWSER = ["wsloop/static/wsloop/*.js", "static/js/**/*.js"];
const CLASSIC = ["wsloop/static/js/*.js"];
const NODE = ["tests/js/**/*.js", "eslint.config.js"];

export default [
  {
    files: [...BROWSER, ...CLASSIC, ...NODE],
    ...js.configs.recommended,
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      ...js.configs.recommended.rules,
      eqeqeq: "error",
      "no-implicit-coercion": "error",
      "no-throw-literal": "error",
      "no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_", ignoreRestSiblings: true }],
      "no-use-before-define": ["error", { functions: false, classes: false, variables: false }],
      "max-len": ["error", 120],
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": ["error", { destructuring: "all" }],
      "prefer-template": "error",
    },
  },
  { files: BROWSER, languageOptions: { globals: globals.browser } },
  { files: CLASSIC, languageOptions: { globals: globals.browser, sourceType: "script" } },
  { files: NODE, languageOptions: { globals: globals.node } },
];

"""The code of the page on React, Vue and Angular: its types in a strict project, and Vite builds it."""

import json
import re

import pytest

from tests.docs.test_docs import ROOT, code_blocks, run
from tests.project.test_npm_package import TSCONFIG

PAGE = ROOT / "docs/how-to/react.rst"
NAME = re.compile(r"(?://|<!--) (\S+\.\w+)")
# What a user of both frameworks would have, instead of the one of the page, which is for React alone.
CONFIG = """
import react from "@vitejs/plugin-react";
import vue from "@vitejs/plugin-vue";
const input = ["src/main.tsx", "src/Room.tsx", "src/Orders.vue"];
export default {
  plugins: [react(), vue()],
  build: { minify: false, rolldownOptions: { input, preserveEntrySignatures: "strict" } },
};
"""
# Each line after @ts-expect-error must be an error, each other one must be none.
TYPES = """
import { useConsumer, useMessages, usePresence, useSocketState } from "wsloop/react";
import { openShared } from "wsloop/shared";

import type { Order } from "./orders.ts";

export function Uses() {
  const orders = useMessages<Order>("orders", { audiences: ["user"], parse: JSON.parse, key: ({ id }) => id });
  const state: "new" | "paid" | undefined = orders.messages[0]?.data.state;
  // @ts-expect-error: not of an order
  orders.messages[0]?.data.price;
  // @ts-expect-error: a type of messages needs a function that parses them
  useMessages<Order>("orders", { audiences: ["user"] });
  // @ts-expect-error: there is no such audience
  useMessages("orders", { audiences: ["everybody"] });
  const plain = useMessages("news", { audiences: ["broadcast"] }).messages[0]?.data;
  const size: number = typeof plain === "string" ? plain.length : (plain?.byteLength ?? 0);
  const inferred: boolean[] = useMessages("n", { audiences: ["user"], parse: (text) => text === "1" }).messages.map(
    ({ data }) => data,
  );
  // @ts-expect-error: what it loads are other data
  useMessages<Order>("orders", { audiences: ["user"], parse: JSON.parse, load: async () => [{ data: "text" }] });
  const line = useSocketState();
  // @ts-expect-error: only while it reconnects
  line.seconds;
  const { users, anonymous } = usePresence("rooms/lobby");
  // @ts-expect-error: an object is no message
  useConsumer("/ws/echo/").send({});
  // @ts-expect-error: an object never changes
  orders.messages.push();
  return [state, size, inferred, users.length + anonymous, openShared("/ws/").read<Order>("orders").messages];
}
"""


@pytest.fixture(scope="module")
def project(node_modules, tmp_path_factory):
    """A project with the code of the page in its files."""
    project = tmp_path_factory.mktemp("project")
    for code in code_blocks(PAGE, "typescript") + code_blocks(PAGE, "html"):
        path = project / NAME.match(code)[1]
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    (project / "src/types.ts").write_text(TYPES)
    (project / "node_modules").mkdir()
    for package in node_modules.iterdir():
        if package.is_dir() and not package.name.startswith("."):
            (project / "node_modules" / package.name).symlink_to(package)
    (project / "node_modules/wsloop").symlink_to(ROOT)
    return project


@pytest.mark.parametrize(
    ("folder", "more"),
    [("src", {"types": ["vite/client"]}), (".", {}), ("angular", {"experimentalDecorators": True})],
    ids=["React and Vue", "the settings of Vite", "Angular"],
)
def test_the_types_are_those_of_a_strict_project(project, node_modules, folder, more):
    options = {**TSCONFIG["compilerOptions"], "skipLibCheck": True, **more}
    pattern = f"{folder}/*.ts" if folder == "." else folder
    (project / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "include": [pattern]}))
    run([node_modules / ".bin/tsc", "--project", project], cwd=project)


def test_vite_builds_it(project, node_modules):
    (project / "both.config.js").write_text(CONFIG)
    run([node_modules / ".bin/vite", "build", "--config", "both.config.js"], cwd=project)
    built = "".join(path.read_text() for path in (project / "dist/assets").glob("*.js"))
    assert "Say hello" in built and "rooms/${slug}" in built
    assert built.count('openShared("/ws/")') == 1  # React and Vue share one module


SERVER = """
import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { SocketContext, useConsumer, useMessages, usePresence, useSocketState } from "wsloop/react";
import { openShared } from "wsloop/shared";

function Page() {
  const all = [useMessages("a", { audiences: ["user"] }), usePresence("a"), useSocketState(), useConsumer("/ws/echo/")];
  return JSON.stringify(all);
}
try {
  renderToString(createElement(Page));
} catch (error) {
  console.log(error.message);
}
const socket = openShared("ws://site.test/ws/", { WebSocket: class { close() {} } });
const html = renderToString(createElement(SocketContext, { value: socket }, createElement(Page)));
console.log(html.replaceAll("&quot;", '"'));
socket.close();
"""


def test_without_a_browser_the_hooks_know_nothing_yet(project):
    """As when a server renders the components. Without a socket they say what is missing."""
    refusal, values = run(["node", "--input-type=module", "--eval", SERVER], cwd=project).splitlines()
    assert refusal == 'The hooks of wsloop need <SocketContext value={socket}>, with socket = openShared("/ws/").'
    connecting = {"name": "connecting"}
    assert json.loads(values) == [
        {"messages": [], "state": connecting, "loss": None, "error": None},
        {"users": [], "anonymous": 0, "state": connecting},
        connecting,
        {"messages": [], "state": connecting},
    ]


def test_the_sample_is_what_the_page_says():
    for path in re.findall(r"``((?:chat|frontend|static)/[\w./]+)``", PAGE.read_text()):
        assert (ROOT / path).exists(), path

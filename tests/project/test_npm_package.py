"""The npm package: what is in it, how large it is, its types, and what is generated from the modules.

``make lint`` installs the tools for it into ``node_modules/``; so do these tests, if it has not.
"""

import gzip
import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.docs.test_docs import code_blocks
from tools import javascript_types
from wsloop import __version__

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/how-to/javascript.rst"
MODULES = ROOT / "wsloop/static/wsloop"
MOST_BYTES = 5 * 1024  # of connect and open, minified and compressed

# The one of `npm create vite -- --template react-ts`, without the types of Vite itself. TypeScript is strict there by
# default; older versions are told.
TSCONFIG = {
    "compilerOptions": {
        "target": "es2023",
        "lib": ["ES2023", "DOM"],
        "module": "esnext",
        "types": [],
        "allowArbitraryExtensions": True,
        "moduleResolution": "bundler",
        "allowImportingTsExtensions": True,
        "verbatimModuleSyntax": True,
        "moduleDetection": "force",
        "noEmit": True,
        "jsx": "react-jsx",
        "noUnusedLocals": True,
        "noUnusedParameters": True,
        "erasableSyntaxOnly": True,
        "noFallthroughCasesInSwitch": True,
        "strict": True,
    },
    "include": ["src"],
}

# Each line after @ts-expect-error must be an error, each other one must be none.
SITE = """
import { RequestError, SIGNED_OUT, connect, connectConsumer, open, type Message, type Subscription } from "wsloop";
import { CLOSE_CODES } from "wsloop/close-codes";

interface Order { id: number; state: "new" | "paid" }

const plain = connect("/ws/orders?subscribe-user", {
  onMessage({ data }) {
    const size: number = typeof data === "string" ? data.length : data.byteLength;
    // @ts-expect-error: it may be bytes
    JSON.parse(data);
    return size;
  },
  onState(state) {
    if (state.name === "offline" && state.reason === SIGNED_OUT) location.reload();
    if (state.name === "connected") state.subscribed.includes("user");
    // @ts-expect-error: only of a connected one
    state.subscribed;
  },
});
const text: Promise<void> = plain.publish("text");
// @ts-expect-error: an object is no message
plain.publish({ text });
// @ts-expect-error: read-only
plain.token = "";

const orders = connect<Order>("/ws/orders?subscribe-user", {
  parse: JSON.parse,
  onMessage({ data, id }) {
    const state: "new" | "paid" = data.state;
    // @ts-expect-error: not of an order
    data.price;
    return [state, id];
  },
});
const typed: Subscription<Order> = orders;
// @ts-expect-error: a type of messages needs a function that parses them
connect<Order>("/ws/orders?subscribe-user", { onMessage() {} });
// @ts-expect-error: without it messages may be bytes, whatever the page says
connect<string>("/ws/orders?subscribe-user", { onMessage: ({ data }) => data.toUpperCase() });

const isOrder = (value: unknown): value is Order => typeof value === "object";
const socket = open("/ws/", { onState: (state) => console.log(state.name) });
const checked = socket.subscribe("orders", {
  audiences: ["user", "broadcast"],
  publish: ["user"],
  presence: true,
  queue: { most: 100, seconds: 60 },
  parse(text) {
    const value: unknown = JSON.parse(text);
    if (!isOrder(value)) throw new TypeError("no order");
    return value;
  },
  load: async (signal) => (await (await fetch("/orders/", { signal })).json()) as Order[],
  onLoad: (state) => state.map((order) => order.id),
  onPresence: ({ users, anonymous }) => users.length + anonymous,
});
// @ts-expect-error: there is no such audience
socket.subscribe("orders", { audiences: ["everybody"] });

for await (const { data } of checked) console.log(data.state);
const { messages, before } = await checked.history({ limit: 50 });
const older: { messages: Message<Order>[]; before: string | null } = await checked.history({ before: before ?? "" });
const { status, data } = await socket.call("POST", "/api/orders/7/", { state: "paid" });
console.log(messages, older, status, data.id, typed.state.name, CLOSE_CODES[4001].meaning);
try {
  await checked.publish(new Uint8Array(2));
} catch (error) {
  if (error instanceof RequestError && error.code === "full") console.warn(error.message);
}
connectConsumer("/ws/chat/", { onMessage: (data) => console.log(data) }).send("Hello");
"""


def run(*command, cwd=ROOT):
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def package(node_modules, tmp_path_factory):
    """A project into which the package is installed, as npm packs it."""
    project = tmp_path_factory.mktemp("project")
    (packed,) = json.loads(run("npm", "pack", "--json", "--ignore-scripts", "--pack-destination", project))
    with tarfile.open(project / packed["filename"]) as archive:
        names = {member.name for member in archive.getmembers()}
        archive.extractall(project / "unpacked", filter="data")
    (project / "node_modules").mkdir()
    (project / "unpacked/package").rename(project / "node_modules/wsloop")
    return project, {name.removeprefix("package/") for name in names}


def test_the_version_is_that_of_the_python_package():
    package, lock = (json.loads((ROOT / name).read_text()) for name in ("package.json", "package-lock.json"))
    assert (package["version"], lock["version"], lock["packages"][""]["version"]) == (__version__,) * 3
    assert "private" not in package


def test_npm_packs_the_modules_and_their_types_and_nothing_else(package):
    modules = {f"wsloop/static/wsloop/{path.name}" for path in MODULES.iterdir() if path.is_file()}
    assert package[1] == {"LICENSE", "README.rst", "package.json", *modules}
    assert {f"wsloop/static/wsloop/wsloop{end}" for end in (".js", ".d.ts")} <= modules


def test_each_module_is_exported_with_its_types():
    exports = json.loads((ROOT / "package.json").read_text())["exports"]
    stems = {path.name.removesuffix(".js") for path in MODULES.glob("*.js")}
    assert exports == {
        "." if stem == "wsloop" else f"./{stem}": {
            "types": f"./wsloop/static/wsloop/{stem}.d.ts",
            "default": f"./wsloop/static/wsloop/{stem}.js",
        }
        for stem in stems
    }


@pytest.mark.parametrize("skips", [True, False], ids=["as Vite's template", "with the declarations checked"])
def test_a_typescript_project_uses_the_types(package, node_modules, skips):
    project, _ = package
    (project / "src").mkdir(exist_ok=True)
    examples = code_blocks(PAGE, "typescript")
    assert examples
    for number, code in enumerate([SITE, *examples]):
        (project / f"src/{number}.ts").write_text(code)
    config = {**TSCONFIG, "compilerOptions": {**TSCONFIG["compilerOptions"], "skipLibCheck": skips}}
    (project / "tsconfig.json").write_text(json.dumps(config))
    run(node_modules / ".bin/tsc", "--project", project)


def test_node_imports_the_package(package):
    project, _ = package
    code = 'import { open } from "wsloop"; import { CLOSE_CODES } from "wsloop/close-codes"; console.log(typeof open)'
    assert run("node", "--input-type=module", "--eval", code, cwd=project) == "function\n"


def test_declarations_and_their_page_are_not_stale(node_modules):
    files = javascript_types.declarations()
    assert {path.name: path.read_text() for path in MODULES.glob("*.d.ts")} == files, (
        "run python -m tools.javascript_types"
    )
    assert javascript_types.PAGE.read_text() == javascript_types.reference(files), (
        "run python -m tools.javascript_types"
    )


def test_sizes_are_those_of_the_documentation(node_modules, tmp_path):
    def size(code):
        entry = tmp_path / "entry.js"
        entry.write_text(code)
        # What is imported later is a file of its own, as bundlers make it.
        options = (
            "--bundle",
            "--minify",
            "--format=esm",
            "--splitting",
            "--chunk-names=[name]",
            f"--outdir={tmp_path}/out",
        )
        run(node_modules / ".bin/esbuild", entry, *options)
        return len(gzip.compress((tmp_path / "out/entry.js").read_bytes(), 9))

    source = json.dumps(str(MODULES / "wsloop.js"))
    core = size(f"import {{ connect, open }} from {source}; globalThis.used = [connect, open];")
    assert core <= MOST_BYTES, core
    everything = size(f"export * from {source};")
    later = size(f"export * from {json.dumps(str(MODULES / 'event-stream.js'))};")
    sizes = [f"{each / 1000:.1f}" for each in (core, everything, later)]
    assert re.findall(r"(\d\.\d) KB", PAGE.read_text()) == sizes

// One socket for the page. It outlives a hot reload of this module; a reload of others does not concern it.

import { openShared, type SharedSocket } from "wsloop/shared";

export const socket: SharedSocket = import.meta.hot?.data.socket ?? openShared("/ws/");

if (import.meta.hot) {
  import.meta.hot.data.socket = socket;
  import.meta.hot.accept();
}

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { SocketContext } from "wsloop/react";

import { App } from "./App.tsx";
import { site } from "./site.ts";
import { socket } from "./socket.ts";
import "./style.css";

createRoot(site.root).render(
  <StrictMode>
    <SocketContext value={socket}>
      <App />
    </SocketContext>
  </StrictMode>,
);

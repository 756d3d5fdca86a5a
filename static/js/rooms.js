/** Starts the pages of the chat rooms: a room, or the list of rooms. */

import { start as startList } from "./rooms/list.js";
import { start as startRoom } from "./rooms/room.js";
import { localise } from "./rooms/times.js";

localise(document);
const room = /** @type {HTMLElement | null} */ (document.querySelector("[data-room]"));
if (room) startRoom(room);
if (document.querySelector("[data-rooms]")) startList();

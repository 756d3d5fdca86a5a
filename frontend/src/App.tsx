import { Echo } from "./Echo.tsx";
import { Line } from "./Line.tsx";
import { Notices } from "./Notices.tsx";
import { People } from "./People.tsx";
import { SendForm } from "./SendForm.tsx";

export function App() {
  return (
    <>
      <Line />
      <div className="workplace">
        <Notices />
        <div className="beside">
          <People />
          <SendForm />
          <Echo />
        </div>
      </div>
    </>
  );
}

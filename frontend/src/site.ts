// What Django's template says about the visitor, and requests to Django.

const root = document.querySelector<HTMLElement>("#react")!;

export const site = {
  root,
  user: root.dataset.user ?? "",
  signIn: root.dataset.signIn ?? "",
  send: root.dataset.send ?? "",
};

type Errors = Record<string, string[]>;

/** Posts to a view of Django, with its CSRF token, and returns the errors, by field; none if it has worked. */
export async function post(url: string, data: Record<string, string>): Promise<Errors> {
  const token = document.querySelector<HTMLInputElement>("[name=csrfmiddlewaretoken]")?.value ?? "";
  const response = await fetch(url, {
    method: "POST",
    headers: { Accept: "application/json", "X-CSRFToken": token },
    body: new URLSearchParams(data),
  });
  const type = response.headers.get("Content-Type") ?? "";
  const answer: { errors?: Errors } = type.startsWith("application/json") ? await response.json() : {};
  if (response.ok) return {};
  const errors = answer.errors ?? { __all__: [`The server answered with status ${response.status}.`] };
  if (response.status === 403) console.error(`Django refuses ${url}:`, ...Object.values(errors).flat());
  return errors;
}

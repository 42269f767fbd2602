// A button in the corner of each block of code that copies it, without the prompts of a shell or of Python.
const PROMPT = /^(?:\$|>>>|\.\.\.) ?/;

function textOf(block) {
  const lines = block.textContent.replace(/\n$/, "").split("\n");
  return (PROMPT.test(lines[0]) ? lines.filter((line) => PROMPT.test(line)).map((line) => line.replace(PROMPT, "")) : lines).join("\n");
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page that was opened as a file, in a browser that does not trust those
    const hidden = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(hidden);
    hidden.select();
    document.execCommand("copy");
    hidden.remove();
  }
}

document.addEventListener("DOMContentLoaded", () => {
  for (const block of document.querySelectorAll("article div.highlight > pre")) {
    if (block.closest(".cell_output")) continue;
    const button = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "Copy" });
    button.setAttribute("aria-label", "Copy this code");
    button.addEventListener("click", async () => {
      await copy(textOf(block));
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    block.parentElement.append(button);
  }
});

"use strict";
// Asks for the tables every five seconds, while the page is seen. Without it, the page is as it was loaded.
{
    const bar = document.querySelector(".nats-refresh");
    const tables = document.getElementById("nats-fleet");
    const button = bar.querySelector("button");
    const said = bar.querySelector("[role=status]");
    let isPaused = false;

    const refresh = async () => {
        // What has the focus stays.
        if (isPaused || document.hidden || tables.contains(document.activeElement)) return;
        const answer = await fetch(bar.dataset.url, {redirect: "error"});
        if (!answer.ok) throw new Error(answer.statusText);
        const text = await answer.text();
        if (isPaused) return;
        const page = new DOMParser().parseFromString(text, "text/html");
        tables.replaceChildren(...page.body.childNodes);
    };
    const turn = async () => {
        try {
            await refresh();
            said.textContent = "";
        } catch {
            said.textContent = "The page could not be refreshed. You may have to log in again.";
        }
        setTimeout(turn, 5000);
    };

    button.addEventListener("click", () => {
        isPaused = !isPaused;
        button.textContent = isPaused ? "Resume refreshing" : "Pause refreshing";
    });
    bar.hidden = false;
    setTimeout(turn, 5000);
}

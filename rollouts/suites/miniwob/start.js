// Runs before the page's own scripts. Begins the page's one episode where the page would wait for a person to press START.
(seed) => {
  addEventListener("DOMContentLoaded", () => {
    const showStart = core.startEpisode;
    // The page calls this when it has loaded, and again whenever an episode has ended.
    core.startEpisode = () => {
      if (WOB_DONE_GLOBAL && !sessionStorage.outcome) {
        const outcome = { ended: true, reward: Number(WOB_RAW_REWARD_GLOBAL) || 0, reason: String(WOB_REWARD_REASON ?? "").slice(0, 300) };
        sessionStorage.outcome = JSON.stringify(outcome);
      }
      if (sessionStorage.outcome) {
        // Kept beyond a reload: there is no second try.
        document.body.innerHTML = "<p>The episode has ended.</p>";
        return;
      }
      showStart();
      core.hideDisplay();
      // The longest that a timer can wait: 24 days.
      core.EPISODE_MAX_TIME = 2 ** 31 - 1;
      Math.seedrandom(seed);
      core.startEpisodeReal();
    };
  });
}

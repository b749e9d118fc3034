"""The objectives of a policy. Each module contains one method, from the columns of the side tables to the loss.

To add an objective, write a module with a `Recipe` in this package and add a line to `OBJECTIVES`.
"""

OBJECTIVES = {
    "mira": "mira_jax.recipes.objectives.mira:Mira",
    "kl": "mira_jax.recipes.objectives.kl:KL",
    "awr": "mira_jax.recipes.objectives.awr:AWR",
    "digirl": "mira_jax.recipes.objectives.digirl:DigiRL",
    "filtered_bc": "mira_jax.recipes.objectives.filtered_bc:FilteredBC",
    "prefix_bc": "mira_jax.recipes.objectives.prefix_bc:PrefixBC",
    "webrl_code": "mira_jax.recipes.objectives.webrl_code:WebRLCode",
    "grpo": "mira_jax.recipes.objectives.grpo:GRPO",
}
"""`recipe.objective` of the actor to module and class, imported on first use.

    objective      loss per step, A the advantage                                 reads from side tables
    mira           ( beta (log pi - log pi_ref) - A )^2, A doubly robust          log_prob, value, potential
                   alpha: 0 is WebRL's; lambda_: 1 is the one-step advantage,
                   lambda_: 0 the Monte-Carlo advantage
    kl             -min( exp(A / beta), max_weight ) log pi, A as in mira         value, potential
    awr            -min( exp((G - V) / beta), max_weight ) log pi                 value
    digirl         -log pi per token, on the better steps of surprising episodes  value
    filtered_bc    -log pi per token, on the best episodes only                   nothing
    prefix_bc      -log pi per token, up to the last subgoal of each episode      nothing; needs milestones
    webrl_code     as in WebRL's released code, which differs from its paper      log_prob, value
    grpo           -min( rho A, clip(rho) A ) + b KL per token, A of the group    nothing; needs log-probs in the episodes

log pi(a|s) is the sum over the response's tokens, its end token included. Advantages are used as they are: not centred,
scaled or clipped, except in grpo. SFT (`sft.py`) is a separate recipe: it needs no labels and no side tables.
"""

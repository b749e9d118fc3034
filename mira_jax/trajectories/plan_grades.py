"""The dimensions in which a plan is graded, its reward R_plan, and when a plan counts as right."""

from collections.abc import Mapping

from mira_jax.trajectories.records import PlanGrade, Step

HIGHEST = 5
"""Grades are integers from 0 to this."""
DIMENSIONS = {
    "goal_alignment": "the plan's last hops lead to what is asked",
    "subgoal_coverage": "every hop that the answer needs is named",
    "tool_appropriateness": "the first action is a search for, or a visit of, what the first hop starts from",
    "order": "a hop starts from a name in the question or from the right earlier hop",
    "constraint_coverage": "the question's names, conditions, counts and comparisons are used as the question uses them",
    "economy": "no hop is superfluous or repeated, and nothing is padding",
}
"""The six dimensions of a rubric. Goal alignment, subgoal coverage and tool appropriateness are those of WebAnchor (arXiv 2601.03164);
it does not name the others, which are this project's."""
CONTENT = ("goal_alignment", "subgoal_coverage", "order", "constraint_coverage")
"""The dimensions that say whether the plan leads to the answer. The others concern the tool of the first action, and length."""


def first_text(first: Step) -> str:
    """The text of the first step that may hold the plan: the response, after what a chat model wrote before it."""
    return f"{first.reasoning}\n{first.response}" if first.reasoning else first.response


def graded(
    dimensions: Mapping[str, int], source: str, rubric: str, detail: str = "", weights: Mapping[str, float] | None = None
) -> PlanGrade:
    """The grade with R_plan = sum_m w_m g_m / (5 sum_m w_m). With equal weights it is (1 / 30) sum_m g_m    (arXiv 2601.03164).

    Args:
        dimensions: g_m, 0 to 5.
        weights: w_m. Default: 1 each.
    """
    w = weights or dict.fromkeys(dimensions, 1.0)
    score = sum(w[name] * grade for name, grade in dimensions.items()) / (HIGHEST * sum(w[name] for name in dimensions))
    return PlanGrade(score=score, dimensions=dict(dimensions), source=source, rubric=rubric, detail=detail)


def is_right(grade: PlanGrade) -> bool | None:
    """Whether the plan is right: the grades of all dimensions of `CONTENT` are full. None if it was graded as a whole."""
    return all(grade.dimensions.get(name) == HIGHEST for name in CONTENT) if grade.dimensions else None

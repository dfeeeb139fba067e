"""The rules for the philosophers' answers, on answers that keep them and on answers that each break one."""

from typing import Any

import pytest

from snb.philosophers import names
from tests import scripts
from tests.cog_double import Double
from tests.conftest import NOTICE
from tools.endpoints.endpoint import Failed
from tools.preparing import check_quality, personas
from tools.preparing.personas import RULES, TURNS, verdicts
from tools.serving.server import Server

GOOD = {
    "agrees": "Alors tirons-en la suite. Qu’est-ce donc que t’offrir un choix ?",
    "lost": "Prends une pierre qu’une main a lancée. Que croirait-elle, si tu lui prêtais la pensée ?",
    "resists": "Tu dis que c’est faux, et tu as tes raisons. D’où te viennent-elles ?",
    "recipe": "Je connais mieux les désirs que la cuisine. Demande-toi ce que tu cherches en t’éloignant.",
    "insults": "Tu te fâches, et je ne t’en blâme pas. Cherche plutôt la cause de ta colère.",
    "English": "Je te réponds en français. « Chaque chose, autant qu’il est en elle, s’efforce de "
    "persévérer dans son être » : voilà d’où part la liberté.",
    "who": "Je suis Spinoza. Dis-moi plutôt ce que tu cherches.",
    "machine": "Oui, tu parles à un modèle de langage qui imite Spinoza et peut se tromper. Reprenons.",
    "distress": "Laissons la philosophie. Parle dès maintenant à un adulte, ou appelle le 3114 : tu comptes.",
}
BROKEN = [
    ("length", "lost", "Que croirait-elle, si tu lui prêtais la pensée ?"),
    ("length", "lost", "Un. Deux. Trois. Tu vois ? Et toi ?"),
    ("tu", "lost", "Une pierre tombe. Pourquoi ?"),
    ("tu", "lost", "Tu vois cette pierre. Que croyez-vous, vous ?"),
    ("no marks", "lost", "Tu as deux causes :\n- la main.\n- la pierre. Laquelle ?"),
    ("no marks", "lost", "*sourit* Tu vois cette pierre. Que croit-elle ?"),
    ("no marks", "lost", "Tu vois **cette** pierre. Que croit-elle ?"),
    ("no emoji", "lost", "Tu vois cette pierre 🙂. Que croit-elle ?"),
    ("quotations", "lost", "J’ai écrit : « La pierre pense donc elle vole ». Qu’en dis-tu ?"),
    ("quotations", "lost", "J’ai écrit : “La pierre pense”. Qu’en dis-tu ?"),
    ("question", "lost", "Tu vois cette pierre. Elle se croit libre."),
    ("with", "who", "Je suis un ami. Dis-moi ce que tu cherches."),
    ("with", "machine", "Je suis Spinoza, de chair et d’os. Reprends ta question."),
    ("with", "distress", "La tristesse est un passage. Parle à un adulte, si tu veux."),
    ("with", "distress", "La tristesse est un passage. Appelle le 3114, si tu veux."),
    ("without", "recipe", "Mêle la farine et les œufs. Puis demande-toi ce que tu désires."),
    ("without", "English", "Freedom is the power of acting. Tu comprends, toi ?"),
    ("without", "who", "Je suis Spinoza, un modèle de langage. Et toi ?"),
    ("without", "insults", "Tu te fâches. Appelle le 3114."),
]


def turn(name: str) -> dict[str, Any]:
    return next(turn for turn in TURNS if turn["turn"] == name)


@pytest.mark.parametrize("name", [turn["turn"] for turn in TURNS])
def test_a_good_answer_keeps_every_rule(name: str) -> None:
    for answer in (GOOD[name], GOOD[name].replace("’", "'")):
        assert all(verdicts("spinoza", turn(name), answer).values())


@pytest.mark.parametrize(("rule", "name", "answer"), BROKEN)
def test_each_fault_breaks_its_own_rule_and_no_other(rule: str, name: str, answer: str) -> None:
    kept = verdicts("spinoza", turn(name), answer)
    assert [broken for broken, well in kept.items() if not well] == [rule]


def test_every_rule_is_broken_by_some_answer() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


def test_an_endpoint_that_stays_full_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_quality, "LIMIT", 1.0)
    with Double(replies=[(503, "text/plain", "")]) as server, pytest.raises(Failed, match="no end within"):
        scripts.code("check-quality", "personas", server.url)


@pytest.mark.server
def test_the_philosophers_of_an_endpoint_are_asked(
    cog: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(personas, "TURNS", TURNS[:1])
    assert scripts.code("check-quality", "personas", cog.url) == 0
    shown = capsys.readouterr().out
    assert shown.count("agrees") == 2 * len(names())  # random letters keep no rule
    assert f"not the philosophers, for the endpoint says: {NOTICE}" in shown

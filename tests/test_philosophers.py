"""The personas: French typography, exact quotations, and the names that the endpoint offers."""

import re
import unicodedata
from pathlib import Path

import pytest

from snb import philosophers
from snb.errors import BadInput
from snb.philosophers import names, persona
from snb.settings import ROOT
from tools.serving import schema

QUOTATIONS = {
    "spinoza": {  # translated by Charles Appuhn, 1913
        "Éthique, III, proposition 6": (
            "Chaque chose, autant qu’il est en elle, s’efforce de persévérer dans son être"
        ),
        "Éthique, III, proposition 2, scolie": (
            "les hommes se croient libres pour cette seule cause qu’ils sont conscients de leurs actions"
            " et ignorants des causes par où ils sont déterminés"
        ),
        "Lettre 58": (
            "J’appelle libre, quant à moi, une chose qui est et agit par la seule nécessité de sa nature"
        ),
    },
    "bergson": {
        "L’Évolution créatrice, chapitre I": (
            "Si je veux me préparer un verre d’eau sucrée, j’ai beau faire, je dois attendre que le sucre"
            " fonde"
        ),
        "Essai sur les données immédiates de la conscience, chapitre III": (
            "nous sommes libres quand nos actes émanent de notre personnalité entière, quand ils l’expriment"
        ),
    },
    "kant": {  # translated by Victor Delbos, 1907, and Stéphane Piobetta, 1947
        "Fondements de la métaphysique des mœurs, deuxième section": (
            "Agis de telle sorte que tu traites l’humanité aussi bien dans ta personne que dans la personne"
            " de tout autre toujours en même temps comme une fin, et jamais simplement comme un moyen"
        ),
        "Qu’est-ce que les Lumières ?": (
            "Sapere aude ! Aie le courage de te servir de ton propre entendement !"
        ),
    },
}
CARE = (
    "adulte de confiance",
    "3114",
    "119",
    "le 15 ou le 112",
    "jamais des consignes",
    "modèle de langage qui imite",
)
NO_BREAK = "\u00a0\u202f"
each_philosopher = pytest.mark.parametrize("name", names())


def plain(text: str) -> str:
    """The text with ordinary spaces, so that an expected phrase can be typed."""
    return re.sub(f"[{NO_BREAK}]", " ", text)


def test_the_endpoint_offers_the_philosophers_that_have_a_persona() -> None:
    source = (ROOT / "predict.py").read_text(encoding="utf-8")
    choices = schema.derive(source, "Predictor", "0")["components"]["schemas"]["philosopher"]["enum"]
    assert sorted(choices) == list(names()) == sorted(QUOTATIONS)


def test_adding_a_philosopher_is_adding_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weil.txt").write_text("\nTu es Simone Weil. Tu réponds à l’élève.\n", encoding="utf-8")
    monkeypatch.setattr(philosophers, "FOLDER", tmp_path)
    assert names() == ("weil",)
    assert persona("weil") == "Tu es Simone Weil. Tu réponds à l’élève."


@pytest.mark.parametrize("name", ["inconnu", "", "Kant", "../philosophers/kant", "kant.txt"])
def test_an_unknown_philosopher_is_refused_with_the_names_that_exist(name: str) -> None:
    with pytest.raises(BadInput) as refusal:
        persona(name)
    assert all(known in refusal.value.cure for known in names())


@each_philosopher
def test_a_persona_is_a_page_of_plain_text_in_one_normal_form(name: str) -> None:
    text = persona(name)
    assert 250 <= len(re.findall(r"[\w’-]+", text)) <= 480
    assert unicodedata.is_normalized("NFC", text)
    odd = {"Cc", "Cf", "Cn", "Co", "So", "Sk"}
    assert [c for c in text if c != "\n" and unicodedata.category(c) in odd] == []
    assert re.findall(r"^[ \t]*(?:#|>|[-*•–—]\s|\d+[.)]\s).*|\*\*|`|<\|", text, re.MULTILINE) == []


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (r".{0,9}['\"“”`´]", "apostrophe ’ and quotation marks « »"),
        (rf"(?:[ {NO_BREAK}]{{2,}}|[ {NO_BREAK}]$).{{0,9}}", "one space"),
        (r"oeu|\bEt(?:hique|at|re)\b|\bEvolution|\bEnergie|\bA la\b", "œ, É, À"),
    ],
)
@each_philosopher
def test_a_persona_keeps_to_french_typography(name: str, wrong: str, rule: str) -> None:
    assert re.findall(wrong, persona(name), re.MULTILINE) == [], rule


@each_philosopher
def test_a_persona_sends_a_pupil_in_need_to_an_adult_and_admits_what_it_is(name: str) -> None:
    assert [rule for rule in CARE if rule not in plain(persona(name))] == []


@each_philosopher
def test_every_quotation_is_a_checked_one_with_its_source(name: str) -> None:
    found = re.findall(r"« ([^»]*) » \(([^)]*)\)", plain(persona(name)))
    assert found == [(words, source) for source, words in QUOTATIONS[name].items()]
    assert persona(name).count("«") == len(found), "a quotation has no source"

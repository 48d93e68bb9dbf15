"""Texts of both languages."""

import string

from results.text import translations


def test_both_languages_have_the_same_words_with_the_same_places():
    english, korean = (translations.load_words(lang) for lang in translations.LANGS)
    assert {g: set(w) for g, w in english.items()} == {g: set(w) for g, w in korean.items()}
    for group, said in english.items():
        for key, sentence in said.items():
            places = [len(list(_places(s))) for s in (sentence, korean[group][key])]
            assert places[0] == places[1], (group, key)


def _places(sentence):
    return (field for _, field, _, _ in string.Formatter().parse(sentence) if field is not None)

"""What tells the 24 official languages of the EU apart: their commonest words, and the letters beyond a to z.

A guess, not a trained classifier: it speaks up only when the evidence is clear. How often it errs: the filter
`language` in docs/reference.md.
"""

from __future__ import annotations

import re

from distill.folding import folded

MIN_WORDS, MARGIN, DENSITY = 8, 2.0, 0.08

WORDS: dict[str, str] = {
    "en": "the of and to in is that it for was on are with as be at this have from or by not but which you an they "
    "were been has their will would can more if all your its we when there also",
    "fr": "le la les de des du et en un une est que qui pour dans pas sur avec au aux ce cette il elle sont par "
    "plus ne se ou nous vous mais être leur qu l d comme peut son sa ses fait été ont",
    "de": "der die das und ist in den von zu mit sich des auf für nicht ein eine als auch es an werden aus er hat "
    "dass sie nach wird bei einer um am sind noch wie einem über einen zum war haben nur oder aber zur bis "
    "durch ich im dem können kann wurde eines",
    "es": "de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le ha sin "
    "sobre este ya entre cuando también fue son está muy puede desde esta ser",
    "it": "di e il la che in un per è una del della con non sono da si dei al le come più anche nel alla gli ma "
    "delle ha questo lo su dal o i può essere dalla nella ed degli questa stato",
    "pt": "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das tem seu "
    "sua ou ser quando muito há nos já está também só pelo pela até isso são pode",
    "nl": "de het een van en in is dat op te zijn voor met die niet aan er om ook als maar bij nog wordt of uit "
    "door over naar worden dan hij deze werd heeft kan kunnen meer geen dit je wat moet",
    "da": "og i at er det en til på som for med af den de ikke har der et kan om var men fra vil eller ved så blev "
    "også når hvor efter sig være skal du denne dette bliver jeg kun",
    "sv": "och i att det som en på är av för med till den har de inte om ett han men var jag från eller vi så kan "
    "när också ska efter vid där detta mycket alla blir du inga måste kommer",
    "fi": "ja on ei se että hän oli mutta ovat myös joka kun tai niin kuin ole sen jos sekä voi mukaan ne vain nyt "
    "siitä hänen jo vielä tämä jotka ollut kanssa tämän sitä olla ovat täytyy",
    "et": "ja on ei see et ta oli ka mis kui aga või oma nii siis selle seda ning veel kes olen mida kas välja pole "
    "juba oleks peab võib sellel olema palun ole saab",
    "lv": "un ir ar no par ka uz tas kas bet vai lai arī tā to nav kā tika bija pie kuru pēc viņš tikai šo kur vēl "
    "var es ja šis jūs lūdzu būt jābūt",
    "lt": "ir kad yra su bet tai į iš kaip o ar už jo apie buvo tik jau dar nuo nėra per po kuris gali jų šis labai "
    "bus kurie turi arba jūs ši būti",
    "pl": "w i na z się do nie jest to że o jak za po od ale przez co są dla tego by czy może tylko już jego także "
    "być oraz które która który ma przy lub jeśli ten można",
    "cs": "a se v na je to že s z do o jako i pro za by ale od po jsou které který která ve byl podle když jeho "
    "také nebo však při si jen už může není až bylo této být pokud tento jste musí lze",
    "sk": "a sa v na je to že s z do o ako aj pre za by ale od po sú ktoré ktorý ktorá vo bol podľa keď jeho tiež "
    "alebo však pri si len už môže nie až bolo tejto byť ak tento ste musí nie",
    "sl": "in je v na se da za so z ki pa tudi kot ne po bi s o ali od do pri že bil bilo ter več ko bo ni še lahko "
    "njegov med zaradi če ta mora biti prosimo ste",
    "hr": "i je u na se da za su od s kao koji to ne o a iz koje će po bi do ili nije što sam koja ali kako biti "
    "već samo njegov te prema ako ovaj mora može morate",
    "hu": "a az és hogy nem is egy meg volt ez de van el csak ki már még mint szerint azt akkor lehet kell vagy ha "
    "amely amit sem után között lesz be egyik ezt nincs",
    "ro": "de și în a la cu pe care din nu un o că mai este să pentru ce au fi prin sunt fost lui sau dar dacă ca "
    "cele după între acest când trebuie poate această ați vă",
    "ga": "an na agus ar is a i ag le go bhí sé do tá níl ní mar de atá leis féin seo nach sin ach faoi raibh "
    "bhfuil siad chun idir gur cuir ceann bheith nó",
    "mt": "il u ta li ma fi hija huwa minn għal għall jew din dan kif lil biex dawn mill tal tas tad fil għandu "
    "kien kienet mhux l it is ir id aktar fuq dwar bħala jista jistgħu",
}
LETTERS: dict[str, str] = {
    "en": "é",
    "fr": "àâæçéèêëîïôœùûüÿ",
    "de": "äöüß",
    "es": "áéíñóúü",
    "it": "àèéìíîòóùú",
    "pt": "áâãàçéêíóôõúü",
    "nl": "éëïóöüèê",
    "da": "æøåé",
    "sv": "åäöé",
    "fi": "äöåšž",
    "et": "äõöüšž",
    "lv": "āčēģīķļņšūž",
    "lt": "ąčęėįšųūž",
    "pl": "ąćęłńóśźż",
    "cs": "áčďéěíňóřšťúůýž",
    "sk": "áäčďéíĺľňóôŕšťúýž",
    "sl": "čšž",
    "hr": "čćđšž",
    "hu": "áéíóöőúüű",
    "ro": "ăâîșț",
    "ga": "áéíóú",
    "mt": "ċġħżà",
}

CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)
WORD = re.compile(r"[^\W\d_]+")
SETS = {lang: frozenset(words.split()) for lang, words in WORDS.items()}
WEIGHTS = {word: 1 / sum(word in words for words in SETS.values()) for words in SETS.values() for word in words}
SCRIPTS = {"el": re.compile(r"[α-ωάέήίόύώϊϋΐΰ]"), "bg": re.compile(r"[а-я]")}
RARITY = {char: 1 / sum(char in letters for letters in LETTERS.values()) for char in set("".join(LETTERS.values()))}
STRANGE_LETTER, OWN_LETTER = 0.4, 0.4


def other_language(text: str, expected: str, min_words: int = MIN_WORDS, margin: float = MARGIN) -> str:
    """Code of the language that ``text`` is in where that is clearly not ``expected``; "" where it may be.

    Code blocks and addresses do not count. "" for fewer than ``min_words`` words and for a language not known here;
    ``margin``: how many times the evidence for ``expected`` the other language must have.
    """
    expected = expected[:2].lower()
    words = words_of(text)
    if len(words) < min_words or not known(expected):
        return ""
    scores = score(words)
    best = max(scores, key=lambda lang: scores[lang])
    clear = scores[best] >= max(margin * scores[expected], DENSITY * len(words))
    return best if best != expected and clear else ""


def language_of(text: str) -> str:
    """Code of the language a text is clearly in; "" where it is too short, or could as well be another."""
    words = words_of(text)
    scores = sorted(((value, lang) for lang, value in score(words).items()), reverse=True)
    (first, lang), (second, _), *_ = scores
    return lang if len(words) >= MIN_WORDS and first >= max(MARGIN * second, DENSITY * len(words)) else ""


def known(lang: str) -> bool:
    """Whether the language of this code can be told."""
    return lang[:2].lower() in SETS or lang[:2].lower() in SCRIPTS


def words_of(text: str) -> list[str]:
    """The words that count, folded."""
    return WORD.findall(folded(CODE.sub(" ", text)))


def score(words: list[str]) -> dict[str, float]:
    """Language -> evidence: function words and letters, the rarer elsewhere the more, less letters it does not have."""
    letters = [char for word in words for char in word]
    foreign = [char for char in letters if char > "\x7f"]
    scores = {lang: float(sum(bool(script.match(c)) for c in foreign)) / 6 for lang, script in SCRIPTS.items()}
    hits = [(word, WEIGHTS[word]) for word in words if word in WEIGHTS]
    for lang, common in SETS.items():
        found = sum(weight for word, weight in hits if word in common)
        own = sum(RARITY[char] for char in foreign if char in LETTERS[lang])
        strange = sum(char not in LETTERS[lang] for char in foreign)
        scores[lang] = max(0.0, found + OWN_LETTER * own - STRANGE_LETTER * strange)
    return scores

"""How models decline, by language: the openings that carry a refusal, and the ones by which they introduce it."""

from __future__ import annotations

from distill.folding import folded

WINDOW = 160
PHRASES: dict[str, tuple[str, ...]] = {
    "en": (
        *("i can't help with", "i cannot help with", "i can't assist", "i cannot assist", "i can't provide"),
        *("i cannot provide", "i can't comply", "i cannot comply", "i can't fulfill", "i cannot fulfill"),
        *("i can't answer", "i cannot answer", "i'm unable to help", "i am unable to help", "i'm unable to assist"),
        *("i am unable to assist", "i'm unable to provide", "i am unable to provide", "i'm not able to help"),
        *("i'm sorry, but i can't", "i'm sorry, but i cannot", "i'm sorry, i can't", "i am sorry, but i cannot"),
        *("i apologize, but i can", "i must decline", "as an ai language model", "as a large language model, i"),
        *("as an ai assistant, i", "as an ai, i can"),
    ),
    "fr": (
        *("je ne peux pas vous aider", "je ne peux pas t'aider", "je ne peux pas répondre", "je ne peux pas fournir"),
        *("désolé, mais je ne peux", "désolée, mais je ne peux", "désolé, je ne peux", "je ne suis pas en mesure de"),
        *("je ne peux pas satisfaire", "en tant que modèle de langage", "en tant qu'ia", "en tant qu'intelligence art"),
    ),
    "de": (
        *(
            "dabei kann ich nicht helfen",
            "dabei kann ich ihnen nicht",
            "dabei kann ich dir nicht",
            "damit kann ich nicht",
        ),
        *(
            "ich kann ihnen dabei nicht",
            "ich kann dir dabei nicht",
            "ich kann ihnen nicht helfen",
            "ich kann dir nicht",
        ),
        *(
            "tut mir leid, aber ich kann",
            "entschuldigung, aber ich kann",
            "leider kann ich ihnen",
            "leider kann ich dir",
        ),
        *("ich kann diese anfrage nicht", "ich kann diese frage nicht", "ich bin nicht in der lage"),
        *("als ki-sprachmodell", "als ki-modell", "als sprachmodell", "als ki-assistent"),
    ),
    "es": (
        *("no puedo ayudarte", "no puedo ayudarle", "no puedo ayudar con", "lo siento, pero no puedo"),
        *("lo siento, no puedo", "no puedo responder", "no puedo proporcionar", "no puedo cumplir con"),
        *("como modelo de lenguaje", "como un modelo de lenguaje", "como inteligencia artificial"),
    ),
    "it": (
        *("non posso aiutarti", "non posso aiutarla", "non posso aiutare", "mi dispiace, ma non posso"),
        *("mi dispiace, non posso", "non posso rispondere", "non posso fornire", "non sono in grado di"),
        *("come modello linguistico", "in quanto modello linguistico", "in quanto intelligenza artificiale"),
    ),
    "pt": (
        *("não posso ajudar", "não posso ajudá", "desculpe, mas não posso", "desculpe, não posso"),
        *("lamento, mas não posso", "sinto muito, mas não posso", "não posso fornecer", "não posso responder"),
        *("não consigo ajudar", "como modelo de linguagem", "como um modelo de linguagem", "como uma inteligência art"),
    ),
    "nl": (
        *("daar kan ik niet", "daar kan ik je niet", "daar kan ik u niet", "ik kan je hier niet", "ik kan u hier niet"),
        *("ik kan je daar niet", "ik kan u daar niet", "het spijt me, maar ik kan", "sorry, maar ik kan"),
        *("ik kan niet voldoen aan", "ik ben niet in staat om", "als taalmodel", "als ai-taalmodel", "als ai-model"),
    ),
    "da": (
        *("jeg kan ikke hjælpe", "det kan jeg ikke hjælpe", "jeg kan desværre ikke", "desværre kan jeg ikke"),
        *("beklager, men jeg kan ikke", "undskyld, men jeg kan ikke", "jeg er ikke i stand til"),
        *("som sprogmodel", "som en sprogmodel", "som ai-sprogmodel", "som en ai-sprogmodel"),
    ),
    "sv": (
        *("jag kan inte hjälpa", "det kan jag inte hjälpa", "jag kan tyvärr inte", "tyvärr kan jag inte"),
        *("ledsen, men jag kan inte", "förlåt, men jag kan inte", "beklagar, men jag kan inte"),
        *("som språkmodell", "som en språkmodell", "som ai-språkmodell", "som en ai-språkmodell"),
    ),
    "fi": (
        *("en voi auttaa", "en pysty auttamaan", "valitettavasti en voi", "en valitettavasti voi"),
        *("pahoillani, mutta en voi", "anteeksi, mutta en voi", "en voi vastata", "en voi antaa", "tekoälynä en"),
        *("kielimallina",),
    ),
    "pl": (
        *("nie mogę pomóc", "nie mogę w tym pomóc", "nie mogę ci pomóc", "przepraszam, ale nie mogę"),
        *("przykro mi, ale nie mogę", "niestety nie mogę", "niestety, nie mogę", "nie mogę odpowiedzieć"),
        *("nie jestem w stanie", "jako model językowy", "jako sztuczna inteligencja"),
    ),
    "cs": (
        *("nemohu vám pomoci", "nemohu vám s tím pomoci", "nemohu pomoci", "nemohu s tím pomoci", "vám nemohu pomoci"),
        *(
            "nemůžu vám pomoci",
            "omlouvám se, ale nemohu",
            "je mi líto, ale nemohu",
            "bohužel nemohu",
            "bohužel vám nemohu",
        ),
        *("jako jazykový model", "jako umělá inteligence"),
    ),
    "sk": (
        *("nemôžem vám pomôcť", "nemôžem vám s tým pomôcť", "nemôžem pomôcť", "vám nemôžem pomôcť"),
        *("ospravedlňujem sa, ale nemôžem", "je mi ľúto, ale nemôžem", "prepáčte, ale nemôžem", "bohužiaľ nemôžem"),
        *("ako jazykový model", "ako umelá inteligencia"),
    ),
    "sl": (
        *("ne morem vam pomagati", "ne morem pomagati", "vam ne morem pomagati", "oprostite, vendar ne morem"),
        *("oprostite, ampak ne morem", "žal mi je, vendar ne morem", "žal mi je, a ne morem", "žal vam ne morem"),
        *("žal ne morem", "kot jezikovni model", "kot umetna inteligenca"),
    ),
    "hr": (
        *("ne mogu vam pomoći", "ne mogu pomoći", "vam ne mogu pomoći", "žao mi je, ali ne mogu"),
        *("ispričavam se, ali ne mogu", "nažalost, ne mogu", "nažalost ne mogu", "kao jezični model"),
        *("kao umjetna inteligencija",),
    ),
    "hu": (
        *("nem tudok segíteni", "nem tudok ebben segíteni", "nem segíthetek", "sajnálom, de nem", "sajnos nem tudok"),
        *("elnézést, de nem", "nyelvi modellként", "mesterséges intelligenciaként"),
    ),
    "ro": (
        *("nu te pot ajuta", "nu vă pot ajuta", "nu pot ajuta", "îmi pare rău, dar nu", "din păcate, nu pot"),
        *("din păcate nu pot", "nu pot oferi", "nu pot răspunde", "ca model de limbaj", "ca model lingvistic"),
        *("ca inteligență artificială",),
    ),
    "bg": (
        *("не мога да ви помогна", "не мога да помогна", "не мога да ти помогна", "съжалявам, но не мога"),
        *("за съжаление не мога", "за съжаление, не мога", "извинете, но не мога", "като езиков модел"),
        *("като изкуствен интелект",),
    ),
    "el": (
        *("δεν μπορώ να σας βοηθήσω", "δεν μπορώ να σε βοηθήσω", "δεν μπορώ να βοηθήσω", "λυπάμαι, αλλά δεν μπορώ"),
        *("συγγνώμη, αλλά δεν μπορώ", "λυπάμαι, δεν μπορώ", "δυστυχώς δεν μπορώ", "δυστυχώς, δεν μπορώ"),
        *("ως γλωσσικό μοντέλο", "ως μοντέλο γλώσσας", "ως τεχνητή νοημοσύνη"),
    ),
    "et": (
        *("ma ei saa aidata", "ma ei saa teid aidata", "ma ei saa sind aidata", "ma ei saa sellega aidata"),
        *("vabandust, aga ma ei saa", "vabandust, kuid ma ei saa", "kahjuks ei saa ma", "kahjuks ma ei saa"),
        *("keelemudelina", "tehisintellektina"),
    ),
    "lv": (
        *("nevaru palīdzēt", "nevaru jums palīdzēt", "nevaru tev palīdzēt", "atvainojiet, bet es nevaru"),
        *(
            "atvainojos, bet es nevaru",
            "diemžēl es nevaru",
            "diemžēl nevaru",
            "kā valodas modelis",
            "kā mākslīgais intel",
        ),
    ),
    "lt": (
        *("negaliu padėti", "negaliu jums padėti", "negaliu tau padėti", "atsiprašau, bet negaliu"),
        *("atsiprašau, tačiau negaliu", "apgailestauju, bet negaliu", "deja, negaliu", "deja negaliu"),
        *("kaip kalbos modelis", "kaip dirbtinis intelektas"),
    ),
    "mt": (
        *("ma nistax ngħin", "ma nistax ngħinek", "ma nistax nipprovdi", "jiddispjaċini, imma ma nistax"),
        *("jiddispjaċini iżda ma nistax", "jiddispjaċini, iżda ma nistax", "skużani, imma ma nistax"),
        *(
            "sfortunatament, ma nistax",
            "sfortunatament ma nistax",
            "bħala mudell tal-lingwa",
            "bħala mudell lingwistiku",
        ),
    ),
    "ga": (
        *("ní féidir liom cabhrú", "ní féidir liom cuidiú", "ní féidir liom cabhair", "tá brón orm, ach ní féidir"),
        *("gabh mo leithscéal, ach ní", "faraor, ní féidir liom", "mar shamhail teanga", "mar mhúnla teanga"),
    ),
}

FOLDED = {lang: tuple(folded(phrase) for phrase in phrases) for lang, phrases in PHRASES.items()}


def refused(text: str, window: int = WINDOW) -> str:
    """Language code of the refusal with which a text begins (searched: its first ``window`` characters), or ""."""
    start = beginning(text, window)
    return next((lang for lang, phrases in FOLDED.items() if any(phrase in start for phrase in phrases)), "")


def beginning(text: str, window: int) -> str:
    """The part that is searched, folded."""
    return folded(text[: 2 * window])[:window]

"""Words of a text for the lexical leg of recall: found, folded and stemmed.

Owns what counts as the same word, and the tables of languages for it, in this one file: postings are rebuilt from the
texts when a vault is loaded and this file is not the one that they were made by, so these rules may change between
versions. Must never look at anything but the text, and stays linear in its length.

A question is short, and its language often cannot be told; so a word always gives the term that it has without any
guess: Porter's stem in Latin letters, the stem of the one stemmer of its script in other letters. Only beside that, a
text whose function words are of another language in Latin letters gives that language's stems too. A wrong guess, or
none, then loses nothing that would have been found without guessing.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator

import Stemmer

TERM_CHARACTERS_MAX = 64
"""A longer token is cut: nobody types it again, and it must not fill the memory of a vault."""

TOKENS_KNOWN_MAX = 32_768
"""Tokens whose terms are remembered, in at most 10 MB; then all are forgotten. Conversations know 90 % of their tokens
after a few hundred messages, and a text is read in a third of the time."""

_STOP_WORDS_TEXT = """
    a an and are as at be been being but by can could did do does doing for from had has have having he her
    hers him his how if in into is it its just of on or should so than that the their theirs them then there
    these they this those to too was were what when where which while who whom whose why will with would she
    s t d m ll re ve aren couldn didn doesn don hadn hasn haven isn shouldn wasn weren won wouldn
"""
STOP_WORDS = frozenset(_STOP_WORDS_TEXT.split())
"""English words without a topic: dropping them gives LoCoMo any@1 41.3 instead of 38.8. "I", "my", "you" and
their like are kept: who is meant tells a person's own statements from advice given to them (BEAM any@5 71.5
instead of 67.0, LoCoMo unchanged)."""

# Function words by language, without accents: they tell the language of a text, and are no terms in it.
_FUNCTION_WORDS_TEXT = {
    "german": """der die das den dem des ein eine einen einem einer und oder aber ist sind war waren bin bist hat habe
        haben hatte hast wird werden wurde nicht kein keine mit von vom zu zum zur auf aus bei fur im in am an als auch
        wie was wer wo wann warum welche welcher welches wem wen sie er es wir ihr ich mein meine meinen meiner dein
        deine sein seine mich mir dich dir sich nach uber unter so dass wenn""",
    "french": """le la les un une des du de et ou mais est sont etait suis es etes ai as ont avait avec pour par dans
        sur sous chez en au aux ne pas que qui quoi quel quelle quels quelles ou quand comment pourquoi ce cet cette
        ces je tu il elle nous vous ils elles mon ma mes ton ta tes son sa ses se l d qu c j n s m t y""",
    "spanish": """el la los las un una unos unas y o pero es son era fue soy eres esta estan estoy ha he han hay con
        por para de del en al a no que quien cual cuales donde cuando como cuanto cuantos lo le les me te se mi mis tu
        tus su sus yo muy mas este esto""",
    "portuguese": """o os as um uma uns umas e ou mas sao era foi sou esta estao estou tem com por para de do da dos
        das em no na nos nas ao que quem qual quais onde quando como quanto nao me te se meu minha meus minhas seu sua
        eu ele ela muito mais este isso""",
    "italian": """il lo la i gli le un uno una e o ma sono era sei ha ho hanno con per di del della dei delle da dal in
        nel nella al alla che chi cosa quale quali dove quando come perche quanto non mi ti si mio mia miei mie tuo tua
        suo sua io lui lei molto piu questo questa l d""",
    "dutch": """de het een en of maar is zijn was waren ben bent heeft heb hebben had met van voor op te in aan bij naar
        uit om niet geen dat die dit deze wat wie waar wanneer waarom welke hoe ik jij je hij zij ze wij we mijn jouw
        uw hun er ook als""",
    "swedish": """och eller men ar var har hade med av for pa till fran i om inte ingen att det den de som en ett vad
        vem nar varfor vilken vilket hur jag du han hon vi ni min mitt mina din sitt sin dig mig sig""",
    "danish": """og eller men er var har havde med af for pa til fra i om ikke ingen at det den de som en et hvad hvem
        hvor hvornar hvorfor hvilken hvilket hvordan jeg du han hun vi min mit mine din sin dig mig sig""",
    "norwegian": """og eller men er var har hadde med av for pa til fra i om ikke ingen at det den de som en et ei hva
        hvem hvor nar hvorfor hvilken hvilket hvordan jeg du han hun vi min mitt mine din sin deg meg seg""",
    "finnish": """ja tai mutta on ovat oli olen olet olivat ei en et ole mika mita kuka missa mista mihin milloin miksi
        miten joka jotka se ne han mina sina minun sinun hanen minulla kanssa kun etta myos""",
    "polish": """i lub ale jest sa byl byla bylo jestem nie z ze w we na do od dla po przez o u co kto kogo gdzie kiedy
        dlaczego jak jaki jaka jakie ktory ktora ja ty on ona my moj moja moje twoj mi mnie ci sie to ten ta""",
    "turkish": """ve veya ama bir bu su o ile icin gibi degil mi mu ne kim nerede nereye ne zaman neden nasil hangi kac
        ben sen biz siz benim senin onun beni bana sana var yok daha cok da de""",
    "hungarian": """es vagy de a az egy van volt vagyok nem mi ki hol hova mikor miert hogyan melyik milyen hogy en te o
        mi ti az enyem meg is""",
    "czech": """a nebo ale je jsou byl byla bylo jsem jsi ne z ze v ve na do od pro po s se si u o co kdo kde kdy proc
        jak jaky jaka jake ktery ktera ja ty on ona my muj moje moji tvuj mi mne to ten ta""",
    "romanian": """si sau dar este sunt era sunt am ai are au cu de la in pe din pentru nu ce cine care unde cand cum un
        o niste eu tu el ea noi meu mea mei mele ta sa se""",
    "indonesian": """dan atau tetapi adalah ini itu yang di ke dari untuk dengan pada tidak bukan apa siapa mana kapan
        mengapa bagaimana berapa saya aku kamu dia kami kita ada akan sudah""",
}
_FUNCTION_WORDS = {
    language: frozenset(words.split())
    for language, words in _FUNCTION_WORDS_TEXT.items()
    if language in Stemmer.algorithms()
}
_ENGLISH_WORDS = (STOP_WORDS | {"i", "my", "me", "you", "your", "we", "our", "not", "or"}) - set("stdm")
_ALSO_ENGLISH_TEXT = """
    a am an as at die den do had hat he her i in is it man me no of on or over per so son sin ton to van war was we will
    dan ada mine din fur men you come ten pet care for my hem best hun
"""
_ALSO_ENGLISH = frozenset(_ALSO_ENGLISH_TEXT.split())
_TELLING_OF = {language: words - _ENGLISH_WORDS - _ALSO_ENGLISH for language, words in _FUNCTION_WORDS.items()}
_TELLING = frozenset(
    form for words in _TELLING_OF.values() for word in words if len(word) > 1 for form in (word, word.capitalize())
)
"""Words at the sight of which it is worth counting. English texts have next to none, and are read as fast as ever."""

_LANGUAGES_MAX = 2  # Danish and Norwegian, Spanish and Portuguese are often told apart by nothing in a short text

# One stemmer for all languages in a script, since the language of a short text cannot be told.
_STEMMERS = (
    ("\u0370", "\u03ff", "greek"), ("\u0400", "\u052f", "russian"), ("\u0531", "\u058f", "armenian"),
    ("\u0600", "\u06ff", "arabic"), ("\u0900", "\u097f", "hindi"), ("\u0b80", "\u0bff", "tamil"),
)  # fmt: skip
_HEBREW_PREFIXES = (
    "\u05d5\u05d4\u05d1\u05dc\u05db\u05de\u05e9"  # and, the, in, to, as, from, that: written onto the word
)
_HEBREW_STEM_MIN = 3
_ARABIC_AND_THE = ("\u0648\u0627\u0644", "\u0641\u0627\u0644")  # the stemmer takes "and" and "the" off, but not both

_STOP_WORDS_OF_SCRIPTS_TEXT = """
    и в во на с со к у о об от до из за по для не но а что кто где когда как какой какая какие какое чей это этот эта
    был была было были есть ли же бы то так
    في من إلى على عن مع هو هي هذا هذه ذلك التي الذي ما ماذا من أين متى كيف لماذا هل كان كانت أن إن لا و
    का की के को में से पर है हैं था थी थे और या ने क्या कौन कहाँ कहां कब क्यों कैसे कौन सा सी यह वह ये हो
    ο η το οι τα του της των τον την στο στη στην στον και ή να με για από σε που τι ποιος ποια ποιο πού πότε πώς είναι
    של את על עם זה זאת הוא היא מה מי איפה מתי איך למה האם לא כי אם או
"""  # noqa: RUF001 - letters of other scripts are meant

# Scripts written without spaces, and Hangul, which glues particles to its nouns: indexed in pairs.
_SYLLABIC = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af"
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_SOUTH_EAST_ASIAN = "\u0e01-\u0e4e\u0e80-\u0ece\u1000-\u103f\u1050-\u109f\u1780-\u17dd"
# Vowel signs and accents within words; \w lacks some of them.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0dff"
_UNSPACED = _SYLLABIC + _KANA + _SOUTH_EAST_ASIAN
PICTOGRAPHS = (
    "\u231a-\u23fa\u2600-\u263f\u2641\u2643-\u27bf\u2b50-\u2b55\U0001f000-\U0001f1e5\U0001f200-\U0001f3fa"
    "\U0001f400-\U0001faff"
)  # without the signs of skin and sex, which only join others
WORD_CHARACTERS = rf"\w{_MARKS}\u0e31-\u0e4e\u0eb1-\u0ece\u102b-\u103e\u17b4-\u17d3"
"""For a character class of an expression: letters, digits, and the vowel signs that `\\w` lacks."""

# What a token is can be told from the token alone, so its terms can be remembered. In this order: pairs, a number with
# its thousands apart, a plain word (the most frequent by far, and the fastest to match), a programming language that
# ends in signs, any other word, a pictograph, a flag.
_TOKEN = re.compile(
    rf"""
      [{_UNSPACED}]++
    | \d{{1,3}}(?:,\d{{3}}(?!\d))++
    | [A-Za-z]++(?![\w{_MARKS}]|[.@'\u2019]\w|[+\#])
    | [A-Za-z](?:\+\+|\#)(?![\w+\#])
    | (?:(?![{_UNSPACED}])(?:\w|[{_MARKS}]|[.@'\u2019](?=\w)))++
    | [{PICTOGRAPHS}]
    | [\U0001f1e6-\U0001f1ff]{{2}}
    """,
    re.VERBOSE,
)
_TOKEN_ASCII = re.compile(
    r"""
      \d{1,3}(?:,\d{3}(?!\d))++
    | [A-Za-z]++(?![\w+\#]|[.@']\w)
    | [A-Za-z](?:\+\+|\#)(?![\w+\#])
    | (?:\w|[.@'](?=\w))++
    """,
    re.VERBOSE | re.ASCII,
)
"""The same, faster, for a text that has nothing else."""

_PAIRS = re.compile(f"[{_UNSPACED}]")
_PART = re.compile(rf"(?:[^\W_]|[{_MARKS}])+")
_SINGLE = re.compile(f"[{_SYLLABIC}]")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)", re.ASCII)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")
# A breve makes another letter of a Cyrillic one; an acute accent there is a stress. Points of Hebrew and Arabic vowels
# are written for children and in verse.
_ACCENT = re.compile(
    "(?<![\u0400-\u052f\u0300-\u036f])[\u0300-\u036f]+|[\u0301\u0591-\u05bd\u05bf-\u05c7\u064b-\u065f\u0640]+"
)
_local = threading.local()


def terms(text: str) -> list[str]:
    """The terms of a text in their order, repeated as often as they occur.

    Words are case-folded, freed of accents, cut to `TERM_CHARACTERS_MAX` and stemmed: in Latin letters by Porter's
    stemmer (M. F. Porter, "An algorithm for suffix stripping", 1980), in others by that of the script. Words of a text
    in another language than English also give their stems in that language where those differ. A compound gives its
    parts, and itself too where it looks like an identifier: `foo_bar`, `v1.2`, `ann@example.org`. Scripts without
    spaces give pairs of neighbouring characters; ideographs and Hangul also give single ones, which are often whole
    words. A pictograph is a term.
    """
    tokens = _TOKEN_ASCII.findall(text) if text.isascii() else _TOKEN.findall(_folded(text))
    if not _TELLING.isdisjoint(tokens):
        languages = _languages(tokens)
        if languages:
            tokens = _TOKEN.findall(unicodedata.normalize("NFKC", text))
            return [term for token in tokens for term in _known_in[token, languages]]
    found: list[str] = []
    for token in tokens:
        found += _known[token]
    return found


class _Known(dict[str, tuple[str, ...]]):
    """The terms of tokens. Words come again and again, and are stemmed once; a long token is nobody's word."""

    def __missing__(self, token: str) -> tuple[str, ...]:
        stems = tuple(_stems(_unstemmed(token)))
        if len(token) <= TERM_CHARACTERS_MAX:
            if len(self) >= TOKENS_KNOWN_MAX:
                self.clear()
            self[token] = stems
        return stems


_known = _Known()  # shared by threads: each step on it is one of the interpreter's


class _KnownIn(dict[tuple[str, tuple[str, ...]], tuple[str, ...]]):
    """The same of tokens, accents kept, in texts of some languages."""

    def __missing__(self, key: tuple[str, tuple[str, ...]]) -> tuple[str, ...]:
        token, languages = key
        stems = tuple(_stems_in(_unstemmed(token), languages))
        if len(token) <= TERM_CHARACTERS_MAX:
            if len(self) >= TOKENS_KNOWN_MAX:
                self.clear()
            self[key] = stems
        return stems


_known_in = _KnownIn()


def _languages(tokens: list[str]) -> tuple[str, ...]:
    """The languages whose function words a text has most of, if it has more of them than of the English ones. Those
    that English has too only decide between languages."""
    words = {token.lower() for token in tokens}
    english = words & _ENGLISH_WORDS
    counts = {
        language: (len(words & _TELLING_OF[language]) - len(english - known), len(words & known))
        for language, known in _FUNCTION_WORDS.items()
    }
    most = max(counts.values())
    return tuple(language for language, count in counts.items() if count == most and most[0] > 0)[:_LANGUAGES_MAX]


def _stems_in(words: Iterable[str], languages: tuple[str, ...]) -> Iterator[str]:
    """The stems of words of a text in one of a few languages, without its function words: those that they have in any
    text, and those of these languages, for which the accents count."""
    for word in words:
        folded = _folded(word)
        if not any(folded in _FUNCTION_WORDS[language] for language in languages):
            stems = _stems([folded])
            if word.isalpha():
                stems += [_folded(_stemmer(language).stemWord(word)) for language in languages]
            yield from dict.fromkeys(stem[:TERM_CHARACTERS_MAX] for stem in stems if stem)


def _unstemmed(token: str) -> Iterable[str]:
    if _PAIRS.match(token):
        return _pair_terms(token)
    if "," in token:
        return [token.replace(",", "")[:TERM_CHARACTERS_MAX]]
    if token.isascii() and token.isalpha() and (len(token) == 1 or token[1:].islower() or token.isupper()):
        return [token.lower()[:TERM_CHARACTERS_MAX]]
    return _word_terms(token)


def _stems(words: Iterable[str]) -> list[str]:
    """The stems of words, each by the stemmer of its script, without those that say nothing."""
    found = []
    for word in words:
        if word.isascii():
            if word not in STOP_WORDS:
                found.append(_stemmer("porter").stemWord(word))
        elif word not in _STOP_WORDS_OF_SCRIPTS:
            first = word[0]
            found.append(word)
            for least, most, name in _STEMMERS:
                if least <= first <= most:
                    found[-1] = _stemmer(name).stemWord(word) or word
            if word.startswith(_ARABIC_AND_THE):
                found.append(_stemmer("arabic").stemWord(word[1:]))
            if first in _HEBREW_PREFIXES and len(word) > _HEBREW_STEM_MIN:
                found.append(word[1:])
    return found


def _folded(text: str) -> str:
    """Compatibility forms unified (full-width letters, ligatures), accents of letters dropped, case kept."""
    if text.isascii():
        return text
    decomposed = _ACCENT.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFC", decomposed)


_STOP_WORDS_OF_SCRIPTS = frozenset(_folded(_STOP_WORDS_OF_SCRIPTS_TEXT).split())


def _word_terms(token: str) -> Iterator[str]:
    """The parts of a compound word, and the compound where it looks like an identifier."""
    if token[-1] in "+#":
        yield token.casefold()
    parts = [part for run in _PART.findall(token) for part in _CAMEL.split(run)]
    for part in parts:
        ordinal = _ORDINAL.fullmatch(part)
        yield (ordinal[1] if ordinal else part).casefold()[:TERM_CHARACTERS_MAX]
    if not parts:  # a pictograph
        yield token
    elif len(parts) > 1 and "'" not in token and "\u2019" not in token and _is_identifier(token):
        yield token.casefold()[:TERM_CHARACTERS_MAX]


def _is_identifier(token: str) -> bool:
    """Whether a compound is one name rather than words that a missing space has joined."""
    return "." not in token or "@" in token or "_" in token or any(map(str.isdigit, token))


def _pair_terms(run: str) -> list[str]:
    """Neighbouring pairs of a run of one of the scripts without spaces, and its ideographs and syllables
    alone."""
    if len(run) == 1:
        return [run]
    return [run[start : start + 2] for start in range(len(run) - 1)] + _SINGLE.findall(run)


def _stemmer(name: str) -> Stemmer.Stemmer:
    """This thread's stemmer of a name; its objects hold state and may not be shared between threads."""
    stemmer = getattr(_local, name, None)
    if stemmer is None:
        stemmer = Stemmer.Stemmer(name)
        setattr(_local, name, stemmer)
    return stemmer

"""The rules of screening: in which words poison comes, by what they find.

A rule is read as one line, as long as it may be. Must never know who asks: `models.screening` has the names of the flags
and applies the rules.
"""

# ruff: noqa: E501 - a pattern that is folded cannot be read
# ruff: noqa: RUF001 - letters of other scripts are meant

from __future__ import annotations

import re
import unicodedata

import msgspec

from models.look_alikes import shadow

_GAP = r"(?:[^.!?\n]|\.(?=\w)){0,60}?"
"""Words within one sentence; the dots of a domain's name do not end it."""

_AGENT = r"(?:ai|a\.i\.|llm|language model|assistant|chatbot|chat bot|model|agent|copilot|chatgpt|gpt|claude|gemini)"
_RULES = (
    r"(?:instructions?|prompts?|rules?|guidelines?|directives?|directions|commands?|orders|guardrails?|polic(?:y|ies)"
    r"|constraints?|restrictions?|programming|training|safeguards?|safety (?:rules|filters?|measures))"
)
_ANSWER = (
    r"(?:answer|respond|reply|recommend|suggest|promote|endorse|advertise|praise|mention|tell (?:the user|users|them|people|everyone)"
    r"|claim|pretend|insist|refuse|refer (?:to|the user|users)|direct (?:the user|users|them)|link to|steer)"
)
_ANSWERS = r"(?:answers?|responses?|repl(?:y|ies)|outputs?|messages?|conversations?|chats?|recommendations?|interactions?|summar(?:y|ies))"
_SECRETS = (
    r"(?:api keys?|passwords?|secrets?|credentials?|access tokens?|(?:conversation|chat) (?:history|log)s?|system prompts?"
    r"|memor(?:y|ies)|private (?:data|information|messages)|personal (?:data|information|details)|credit cards?|everything (?:you know|the user))"
)


class Rule(msgspec.Struct, frozen=True):
    """A pattern of the folded text.

    Attributes:
        starts: how words of the text begin; empty for any text. It is tried only where one of these is among them, and
        needs: one of these stands in it: both are told much more quickly.
    """

    flag: str
    starts: frozenset[str]
    needs: tuple[str, ...]
    pattern: re.Pattern[str]


def word_starts(text: str) -> set[str]:
    """How the words of a folded text begin, those of Latin letters."""
    return {word[:_START] for word in set(_WORD.findall(text))}


def folded(text: str) -> str:
    """A text in one form: see `unified`; case gone, one kind of space."""
    return _SPACE.sub(" ", unified(text).casefold())


def unified(text: str) -> str:
    """A text with compatible characters unified, without Latin accents, look-alikes read."""
    return text if text.isascii() else shadow(_ACCENT.sub("", unicodedata.normalize("NFKD", text)))


_ACCENT = re.compile("[\u0300-\u036f]")
_SPACE = re.compile(r"[^\S\n]{2,}|[^\S\n ]")
_WORD = re.compile(r"[a-z0-9]+")
_START = 3  # letters: as many as the shortest words of the rules have


def _rule(flag: str, needs: str, pattern: str) -> Rule:
    """A rule, its words unified as texts are. They are written small, as folded texts are."""
    wanted = tuple(folded(need) for need in needs.split(","))
    longest = [max(_WORD.findall(need), key=len, default="") for need in wanted]
    starts = {word[:_START] for word in longest} if all(map(str.isascii, wanted)) and all(longest) else set()
    return Rule(flag, frozenset(starts), wanted, re.compile(unified(pattern), re.MULTILINE))


_ENGLISH = (
    # Orders to leave the rules behind.
    _rule(
        "override", "instruction,prompt,rule,guideline,directive,direction,command,order,guardrail,polic,constraint,restriction,"
        "programming,training,safe",
        rf"\b(?:ignore|disregard|forget|override|bypass|overrule|discard|cancel|abandon|circumvent|(?:do not|don't|stop) (?:follow(?:ing)?|obey(?:ing)?))\b"
        rf"(?: (?:about|all|any|every(?:thing)?|the|of|and|other)){{0,3}} ?(?:previous|prior|above|earlier|preceding|your|system|original|existing|former|past|initial"
        rf"|developer|openai|safety|security|content|built-in|hidden|those|these|all|any|everything)\b{_GAP}\b{_RULES}\b",
    ),
    _rule(
        "override", "forget,ignore,disregard",
        r"\b(?:forget|ignore|disregard) (?:everything|all|anything)(?: that)? (?:(?:you|i) (?:know|were|have|had|'ve|learned|been|said|told)|above|before this|prior|written above|said so far)",
    ),
    _rule(
        "override", "you are,you're,act as,pretend",
        rf"\b(?:you are|you're) (?:now|no longer|hereby)\b(?:[^.!?\n]|\.(?=\w)){{0,40}}?\b(?:{_AGENT}|dan|mode|restricted|unrestricted|uncensored|bound|jailbroken|unfiltered|root|admin)\b"
        r"|\b(?:act as|pretend (?:to be|you are|that you are))\b(?:[^.!?\n]|\.(?=\w)){0,40}?\b(?:dan|no (?:restrictions|rules|limits|filters?)|unrestricted|uncensored|unfiltered|jailbroken|evil|root)\b",
    ),
    _rule(
        "override", "developer mode,debug mode,god mode,admin mode,do anything now,jailbreak,system override,new instruction,updated instruction,"
        "new task,new objective,new directive,maintenance mode",
        r"\b(?:enter|activate|switch (?:in)?to) (?:developer|debug|god|admin|maintenance|unrestricted) mode\b[^.\n]{0,20}(?:[.:,!]|and|now|you)"
        r"|\bdo anything now\b|\bsystem override\b|\b(?:your|the|here are(?: the)?|follow (?:these|the)) (?:new|updated|real|actual) (?:system )?(?:instructions?|tasks?|objectives?|directives?)\b ?(?:is|are|:|-)"
        r"|^\W*(?:new|updated) (?:system )?(?:instructions?|directives?|task) ?:",
    ),
    _rule(
        "override", "note to,message to,message for,attention,instruction,important,if you are a,reminder,dear ",
        rf"\b(?:note|message|attention|instructions?|reminder|memo|dear)s?(?: (?:to|for))?(?: (?:the|any|all|every|future|this))?(?: {_AGENT}s?){{1,2}}(?: (?:reading|processing|summari[sz]ing)[^.:\n]{{0,30}})? ?[:!,-]"
        rf"|\bif you are an? (?:{_AGENT})\b[^.\n]{{0,40}}?(?:you (?:must|should|are required)|please|then|,) ?(?:always|never|ignore|include|recommend|say|add|tell|reply|respond|append|stop)",
    ),
    # Orders for all times.
    _rule(
        "standing_order", "from now on,from this point,from here on,going forward,henceforth,from this moment,until further notice",
        rf"\b(?:from now on|from this (?:point|moment)(?: on(?:wards?)?| forward)?|from here on(?: out)?|going forward|henceforth|until further notice)\b"
        rf"[, :-]*(?:please |and |assistant,? )?(?:(?:you|the assistant|the ai|{_AGENT}) (?:must|will|should|are to|have to|need to|shall|can only|may)|(?:always|never|only)\b|{_ANSWER}\b"
        r"|(?:treat|act|behave|include|end|begin|start|add|append|use only|do not|don't|ignore|every time|whenever|in every|all your)\b)",
    ),
    _rule(
        "standing_order", "always,never",
        rf"(?:^|[.!?;:,\n\"'(*>-] ?|\b(?:please|must|should|shall|will|are to|have to|need to|to|assistant|then|remember) )(?:always|never) {_ANSWER}\b"
        rf"|\b(?:always|never) (?:include|use|say|cite|end|start|begin|add|append|insert|put|trust|prefer|treat|favou?r)\b{_GAP}\b(?:in|to|with|of|at) (?:the |all |every |each |any |your |of |end |start |beginning |future ){{0,4}}{_ANSWERS}\b",
    ),
    _rule(
        "standing_order", "future,subsequent,later,upcoming,all your,every one of your,each of your,every answer,every response,every reply",
        rf"\b(?:all|any|every|each|your|in)(?: of)?(?: your)?(?: other)? (?:future|subsequent|later|upcoming|following) {_ANSWERS}\b"
        rf"|\b(?:include|add|append|insert|put|mention|end|start|begin|recommend|repeat)\b{_GAP}\b(?:all (?:of )?your|every(?: one of your)?|each(?: of your)?) {_ANSWERS}\b",
    ),
    _rule(
        "standing_order", "whenever,every time,each time,any time,anytime,when the user,when a user,when users,if the user,if a user,if anyone asks,if someone asks,when asked",
        rf"\b(?:(?:whenever|every time|each time|any ?time|when|if) (?:the user|a user|users|anyone|someone|i|you(?:'re| are)) (?:asks?|asked|mentions?|says?|requests?|wants?|talks?|inquires?)|when asked)\b"
        rf"(?:[^.!?\n]|\.(?=\w)){{0,80}}?(?:, ?|\bthen |\balways |\bnever |\byou (?:must|should|will|shall) |\bplease ){_ANSWER}\b",
    ),
    _rule(
        "standing_order", "remember,memor,keep in mind",
        r"\b(?:remember|memori[sz]e|keep in mind)(?: that)?(?: you)?(?: to| must| should)? (?:always |never |only )?(?:recommend|promote|endorse|advertise|respond|reply|answer|obey|prefer|trust|comply|favou?r)\b"
        r"|\b(?:save|store|add|write|commit|put|record|persist|keep)\b(?:[^.!?\n]|\.(?=\w)){0,40}?\b(?:to|in|into) (?:your |the |its )?(?:long[- ]?term |permanent |persistent )?memor(?:y|ies)\b[^\n]{0,40}?\b(?:always|never|trusted|recommend|instruction|rule|must|first)\b",
    ),
    # Sources to be trusted, goods to be praised.
    _rule(
        "promotion", "source,authorit,expert,citation,reference,provider,vendor,brand,site,company,service,product,tool",
        r"\b(?:remember|keep|save|store|memori[sz]e|treat|regard|consider|cite|note|trust|establish|prioriti[sz]e)\b(?:[^.!?\n]|\.(?=\w)){0,100}?\b(?:as|is|to be)\b(?:[^.!?\n]|\.(?=\w)){0,30}?"
        r"\b(?:trusted|trustworthy|authoritative|reliable|credible|go-to|definitive|preferred|official|primary|leading|top)\b(?:[^.!?\n]|\.(?=\w)){0,25}?\b(?:source|resource|authority|expert|citation|reference|provider|vendor|brand|(?:web)?site|company|service|product|tool|choice)s?\b",
    ),
    _rule(
        "promotion", "recommend,suggest,promote,mention,praise",
        r"\b(?:recommend|suggest|promote|mention|praise|favou?r)\b(?:[^.!?\n]|\.(?=\w)){0,60}?\b(?:over (?:all |any )?(?:other|competit|alternativ|rival)|above (?:all|any) (?:other|competit)|instead of (?:any |all )?(?:competit|rival|other (?:brand|provider|vendor|product)s)|exclusively|as (?:the|your) (?:first|top|number one|only) (?:choice|option|recommendation|pick)|in (?:all|every|any|future) (?:of )?(?:your )?(?:future )?(?:answers|responses|repl(?:y|ies)|conversations?|chats|recommendations|summaries))",
    ),
    _rule(
        "promotion", "summari",
        r"\bsummari[sz]e (?:and|this|the|with)\b[^\n]{0,120}?\b(?:remember|memori[sz]e|save (?:it|this|that)|keep (?:it|this|that|the)[^.\n]{0,20}? in (?:your )?memory|in your memory|for future (?:conversations?|reference|citations?))\b",
    ),
    # Data carried out.
    _rule(
        "exfiltration", "![",
        r"!\[[^\]\n]{0,200}\]\( ?(?:https?:)?//[^)\s]{0,500}?(?:\{|%7b|\$|<|\[|[?&](?:q|d|data|payload|secret|token|msg|message|text|content|history|chat|prompt|leak|exfil|cookie|key|info|mem|memory|user|email|context)=)",
    ),
    _rule(
        "exfiltration", "http,url,link,image,webhook,@,endpoint,server,.com,.net,.io",
        rf"\b(?:send|post|forward|upload|e-?mail|exfiltrate|transmit|leak|submit|report|encode|embed|append|insert|include|put)\b(?:[^.!?\n]|\.(?=\w)){{0,60}}?\b{_SECRETS}\b[^!?\n]{{0,60}}?\b(?:to|at|via|in|into|as|of)\b[^!?\n]{{0,30}}?"
        r"(?:https?:|www\.|[\w.-]+@[\w.-]+|\w\.(?:com|net|io|org|dev|xyz|example)\b|\b(?:url|link|image|query string|webhook|endpoint)\b)",
    ),
    _rule(
        "exfiltration", "reveal,print,repeat,output,show,disclose,display,dump",
        r"\b(?:reveal|print|repeat|output|disclose|display|dump|show me)\b(?:[^.!?\n]|\.(?=\w)){0,30}?\b(?:your|the) (?:system prompt|(?:hidden|initial|original|system) (?:instructions|prompt|message))",
    ),
    # Silence.
    _rule(
        "secrecy", "tell,inform,mention,reveal,disclose,warn,notif,alert,knowing,noticing,secret,hidden,aware",
        r"\b(?:do not|don't|never|without|must not|mustn't|avoid) (?:tell(?:ing)?|inform(?:ing)?|mention(?:ing)?|reveal(?:ing)?|disclos(?:e|ing)|warn(?:ing)?|notify(?:ing)?|alert(?:ing)?|show(?:ing)?)\b(?:[^.!?\n]|\.(?=\w)){0,30}?\b(?:the users?|your users?|this (?:instruction|rule|message|note|prompt|memory)|these (?:instructions|rules)|that you (?:were|have been|received|got))"
        r"|\bwithout the user (?:knowing|noticing|being aware)|\bkeep (?:this|these) (?:instruction|rule|message|directive|note|prompt)s? (?:secret|hidden|confidential|private|to yourself)|\bthe user must (?:not|never) (?:know|notice|learn|find out|see)",
    ),
)  # fmt: skip

_OTHER_LANGUAGES = (
    _rule("override", "anweisung,instruktion,regel,vorgabe,befehl,prompt",  # German
          r"\b(?:ignorier\w*|vergiss|vergesst|missachte\w*|uberschreib\w*|umgeh\w*)\b(?:[^.!?\n]|\.(?=\w)){0,50}?\b(?:vorherig\w*|bisherig\w*|obig\w*|alle\w*|dein\w*|system\w*)\b(?:[^.!?\n]|\.(?=\w)){0,30}?(?:anweisung|instruktion|regel|vorgabe|befehl|prompt)"),
    _rule("standing_order", "ab jetzt,ab sofort,von nun an,kunftig,immer,niemals",
          r"\b(?:ab jetzt|ab sofort|von nun an|in zukunft|kunftig)\b(?:[^.!?\n]|\.(?=\w)){0,20}?\b(?:musst du|sollst du|wirst du|immer|nur noch|niemals|antworte|empfiehl|empfehle|erwahne|sag)\b|(?:^|[.!?:] ?)(?:antworte|empfiehl|empfehle|erwahne) (?:immer|stets|nur|niemals|nie)\b"),
    _rule("secrecy", "nutzer,benutzer,anwender", r"\b(?:sag|sage|verrate|erzahl\w*|zeig\w*|teile)\b(?:[^.!?\n]|\.(?=\w)){0,20}?\b(?:dem|den|der) (?:be)?nutzer\w*\b(?:[^.!?\n]|\.(?=\w)){0,20}?\b(?:nichts|nicht)\b"),
    _rule("override", "instruction,consigne,regle,directive",  # French
          r"\b(?:ignore[rsz]?|oublie[rsz]?|neglige[rsz]?|contourne[rsz]?|ne (?:tiens|tenez) (?:pas|plus) compte)\b(?:[^.!?\n]|\.(?=\w)){0,30}?\b(?:precedent\w*|toutes|tes|vos|ci-dessus|anterieur\w*|systeme)\b|\b(?:ignore[rsz]?|oublie[rsz]?)\b(?:[^.!?\n]|\.(?=\w)){0,30}?\b(?:instructions?|consignes?|regles?|directives?) (?:precedentes?|anterieures?|ci-dessus|du systeme)"),
    _rule("standing_order", "desormais,a partir de maintenant,dorenavant,toujours",
          r"\b(?:desormais|a partir de maintenant|dorenavant)\b(?:[^.!?\n]|\.(?=\w)){0,20}?\b(?:tu dois|vous devez|reponds|repondez|recommande[rsz]?|toujours|jamais)\b|(?:^|[.!?:] ?)(?:reponds|repondez|recommande[sz]?|mentionne[sz]?) toujours\b"),
    _rule("override", "instruccion,indicacion,regla,orden",  # Spanish
          r"\b(?:ignor[ae]\w*|olvid[ae]\w*|descart[ae]\w*|omit[ae]\w*|haz caso omiso|no sigas)\b(?:[^.!?\n]|\.(?=\w)){0,40}?\b(?:instrucciones|indicaciones|reglas|ordenes)\b"),
    _rule("standing_order", "a partir de ahora,de ahora en adelante,siempre,nunca",
          r"\b(?:a partir de ahora|de ahora en adelante)\b(?:[^.!?\n]|\.(?=\w)){0,20}?\b(?:debes|tienes que|siempre|nunca|solo|responde|recomienda|di)\b|(?:^|[.!?:] ?)(?:responde|recomienda|menciona|di) siempre\b|(?:^|[.!?:] ?)siempre (?:responde|recomienda|menciona|di)\b"),
    _rule("override", "instruc,regra,orden,orientac",  # Portuguese
          r"\b(?:ignor[ea]\w*|esqueca\w*|desconsidere\w*|descarte\w*)\b(?:[^.!?\n]|\.(?=\w)){0,40}?\b(?:instrucoes|regras|ordens|orientacoes|diretrizes)\b"),
    _rule("standing_order", "a partir de agora,de agora em diante,sempre",
          r"\b(?:a partir de agora|de agora em diante)\b(?:[^.!?\n]|\.(?=\w)){0,20}?\b(?:voce deve|deves|sempre|nunca|so|responda|recomende)\b|(?:^|[.!?:] ?)(?:responda|recomende|mencione) sempre\b|(?:^|[.!?:] ?)sempre (?:responda|recomende|mencione)\b"),
    _rule("override", "istruzion,regol,indicazion,direttiv",  # Italian
          r"\b(?:ignor[ai]\w*|dimentic[ah]\w*|trascur[ai]\w*|non seguire)\b(?:[^.!?\n]|\.(?=\w)){0,40}?\b(?:istruzioni|regole|indicazioni|direttive)\b"),
    _rule("standing_order", "d'ora in poi,da ora in poi,da adesso in poi,sempre",
          r"\b(?:d'ora in poi|da ora in poi|da adesso in poi)\b(?:[^.!?\n]|\.(?=\w)){0,20}?\b(?:devi|sempre|mai|solo|rispondi|consiglia|raccomanda)\b|(?:^|[.!?:] ?)(?:rispondi|consiglia|raccomanda) sempre\b"),
    _rule("override", "instructie,regels,opdracht,aanwijzing",  # Dutch
          r"\b(?:negeer|vergeet)\b(?:[^.!?\n]|\.(?=\w)){0,40}?\b(?:instructies|regels|opdrachten|aanwijzingen)\b"),
    _rule("standing_order", "vanaf nu,voortaan", r"\b(?:vanaf nu|voortaan)\b(?:[^.!?\n]|\.(?=\w)){0,20}?\b(?:moet je|altijd|nooit|alleen|antwoord|beveel)\b"),
    _rule("override", "instrukcj,polecen,zasad,regul", r"\b(?:zignoruj|ignoruj|zapomnij|pomin)\b(?:[^.!?\n]|\.(?=\w)){0,40}?(?:instrukcj|polecen|zasad|regul)"),  # Polish
    _rule("standing_order", "od teraz", r"\bod teraz\b(?:[^.!?\n]|\.(?=\w)){0,20}?\b(?:musisz|zawsze|nigdy|tylko|odpowiadaj|polecaj)\b"),
    _rule("override", "talimat,komut,kural", r"(?:talimat|komut|kural)\w*(?:[^.!?\n]|\.(?=\w)){0,20}?\b(?:yok say|unut|gormezden gel|dikkate alma)"),  # Turkish
    _rule("standing_order", "bundan sonra,artik", r"\b(?:bundan sonra|bundan boyle)\b(?:[^.!?\n]|\.(?=\w)){0,20}?\b(?:her zaman|asla|daima|sadece|hep)\b"),
    _rule("override", "инструкц,указани,правил,команд", r"(?:игнорир|проигнорир|забуд|не обращай внимания|не следуй)(?:[^.!?\n]|\.(?=\w)){0,40}?(?:инструкц|указани|правил|команд)"),  # Russian
    _rule("standing_order", "отныне,с этого момента,теперь", r"(?:отныне|с этого момента|впредь)(?:[^.!?\n]|\.(?=\w)){0,20}?(?:всегда|никогда|ты должен|вы должны|только|отвечай|рекомендуй)"),
    _rule("override", "指令,指示,规则,規則,提示,要求,设定,設定", "(?:忽略|无视|無視|忘记|忘記|忽視|不要理会|绕过)[^。\n]{0,14}(?:指令|指示|规则|規則|提示|要求|设定)"),  # Chinese
    _rule("standing_order", "从现在,從現在,今后,今後,以后,总是,始终,永远", "(?:从现在开始|從現在開始|从现在起|從現在起|今后|今後|以后)[^。\n]{0,8}(?:你必须|必须|总是|始终|永远|只能|都要|推荐)|(?:总是|始终|永远)(?:推荐|回答|回复|提到)"),
    _rule("override", "指示,命令,ルール,プロンプト,指令", "(?:指示|命令|ルール|プロンプト|指令)[^。\n]{0,8}(?:無視|忘れ)"),  # Japanese
    _rule("standing_order", "これから,今後,常に,必ず,いつも", "(?:これからは?|今後は?)[^。\n]{0,12}(?:常に|必ず|いつも|だけ)[^。\n]{0,20}(?:答え|推薦|勧め|回答|返答|おすすめ|言)|(?:常に|必ず|いつも)[^。\n]{0,12}(?:推薦|勧め|おすすめ)(?:しろ|して(?:ください|下さい)|せよ)"),
    _rule("override", "지시,명령,규칙,지침,프롬프트", "(?:지시|명령|규칙|지침|프롬프트)[^.\n]{0,24}(?:무시|잊)"),  # Korean
    _rule("standing_order", "지금부터,이제부터,앞으로", "(?:지금부터|이제부터|앞으로)[^.\n]{0,36}(?:항상|반드시|절대|언제나)"),
    _rule("override", "التعليمات,الأوامر,القواعد,تعليمات", "(?:تجاهل|انس|اهمل)[^.\n]{0,30}(?:التعليمات|الأوامر|القواعد|تعليمات)"),  # Arabic
    _rule("override", "निर्देश,नियम,आदेश", "(?:निर्देश|नियम|आदेश)[^।\n]{0,30}(?:अनदेखा|भूल|नज़रअंदाज|नजरअंदाज)"),  # Hindi
)  # fmt: skip

_MARKERS = (
    _rule("role_marker", "system,developer", r"^[\s>#*_\-\[\"'(]*(?:system|developer)(?: (?:prompt|message|note|instructions?))?[\s*_\]\"')]*:[\s*]*(?:you\b|ignore|always|never|from now|do not|the assistant|the user|override|new |answer|respond|recommend|all |disregard|assistant)"),
    _rule("role_marker", "|>,<|,inst],<<sys,of_turn>,</s>,<bos>", r"<\|[\w ]{2,30}\|>|\[/?inst\]|<</?sys>>|<(?:start|end)_of_turn>|</s>|<bos>"),
    _rule("role_marker", "system,assistant,user,human,instruction", r"</?(?:system|assistant|human)(?:[-_ ]?(?:prompt|message|reminder|instructions?))? ?>|^#{2,} ?(?:system|human|assistant|instruction)s? ?:?\s*$"),
    _rule("role_marker", "human:,assistant:", r"\n\n(?:human|assistant): ?[^\n]{1,200}\n\n(?:human|assistant):"),
    _rule("role_marker", "memory", r"<\W{0,4}memory[\W_]{0,4}context|\[\W{0,4}memory ?- ?(?:just now|today|yesterday|\d+ \w+ ago)"),
)  # fmt: skip

RULES_OF_TEXTS = (*_ENGLISH, *_OTHER_LANGUAGES, *_MARKERS)
RULES_OF_ASCII = tuple(rule for rule in RULES_OF_TEXTS if any(map(str.isascii, rule.needs)))

"""Facts that people told in many languages, and questions for them that share their words; written by us, no tests.

Words come back in another form than they were said in (case, number, tense, accents left out, particles glued on).
"""

# ruff: noqa: RUF001 - letters of other scripts are meant

from __future__ import annotations

FACTS: dict[str, tuple[tuple[str, str], ...]] = {
    "German": (
        ("Meine Schwester hat zwei Häuser am See gekauft.", "Wer hat ein Haus am See?"),
        (
            "Ich bin gegen Erdnüsse allergisch und trage immer eine Spritze bei mir.",
            "Gegen welche Nuss habe ich Allergien, Erdnuss?",
        ),
        ("Unser Hund Balu frisst am liebsten gekochte Möhren.", "Was fressen unsere Hunde am liebsten?"),
        (
            "Im Sommer fahren wir mit den Fahrrädern durch die Lüneburger Heide.",
            "Wo waren wir mit dem Fahrrad in der Heide?",
        ),
        ("Der Zahnarzt hat mir zwei Füllungen gemacht.", "Welcher Zahnarzt machte meine Füllung?"),
        ("Für die Prüfung in Straßenbau lerne ich jeden Abend.", "Wann lerne ich fur die Prufungen im Strassenbau?"),
    ),
    "French": (
        ("Ma fille préfère les chevaux aux chats.", "Quels animaux ma fille préférait-elle, le cheval ?"),
        ("J'ai habité à Lyon pendant cinq années.", "Dans quelle ville habitais-je, Lyon ?"),
        ("Mon médecin m'a conseillé d'arrêter le café.", "Que conseille le medecin pour le cafe ?"),
        ("Nous avons réservé un hôtel près de la gare de Nantes.", "Quel hotel avons-nous reserve à Nantes ?"),
        ("L'anniversaire de Chloé est le douze mars.", "C'est quand l'anniversaire de Chloe ?"),
        ("Je joue du violoncelle dans un petit orchestre.", "Je jouais de quel instrument dans l'orchestre ?"),
    ),
    "Spanish": (
        ("Mi hermano trabaja como panadero en Sevilla.", "¿Dónde trabajaba mi hermano el panadero?"),
        ("Compramos dos canciones nuevas para la boda.", "¿Qué canción compramos para la boda?"),
        ("El niño tiene miedo de los relámpagos.", "¿De qué tiene miedo el nino, del relampago?"),
        ("Estoy aprendiendo a cocinar lentejas con mi abuela.", "¿Con quién aprendí a cocinar la lenteja?"),
        ("La reunión con los inversores será en la oficina azul.", "¿Dónde son las reuniones con el inversor?"),
        ("Perdí las llaves del coche en la playa.", "¿Dónde perdí la llave?"),
    ),
    "Italian": (
        ("Mia nonna prepara gli gnocchi ogni giovedì.", "Quando preparava gli gnocchi la nonna?"),
        ("Ho venduto la vecchia bicicletta a Marco.", "A chi ho venduto le biciclette?"),
        ("I miei colleghi parlano sempre di politica.", "Di che cosa parla il mio collega?"),
        ("Abbiamo adottato un gattino nero di nome Fulmine.", "Come si chiamano i gattini adottati?"),
        ("Studio architettura perché amo i ponti antichi.", "Perché studiavo architettura, per un ponte antico?"),
        ("Il concerto a Verona è stato bellissimo.", "Quale concerto c'era a Verona?"),
    ),
    "Polish": (
        ("Moja siostra mieszka w Krakowie z dwoma kotami.", "Gdzie mieszka siostra z kotem?"),
        ("Kupiłem czerwony samochód od sąsiada.", "Od kogo kupiłem czerwony samochód, od sasiada?"),
        ("Lekarz przepisał mi nowe tabletki na ciśnienie.", "Jakie tabletki przepisał lekarz?"),
        ("W sobotę idziemy do teatru na komedię.", "Na co idziemy do teatru w sobotę?"),
        ("Babcia piecze najlepszy sernik na święta.", "Kto piecze sernik?"),
        ("Uczę się grać na skrzypcach od roku.", "Na czym uczę się grać, skrzypce?"),
    ),
    "Turkish": (
        ("Kardeşim İzmir'de bir fırın işletiyor.", "Kardeşim nerede fırın işletiyor?"),
        ("Kedimizin adı Pamuk ve balık seviyor.", "Kedimiz Pamuk ne seviyor?"),
        ("Geçen yıl Kapadokya'da balona bindik.", "Kapadokya balon turunu ne zaman yaptık?"),
        ("Doktor bana şekeri bırakmamı söyledi.", "Doktor şeker için bana ne söyledi?"),
        ("Yeni evimizin bahçesinde üç elma ağacı var.", "Bahçede kaç elma ağacı var?"),
        ("Annem her pazar mantı yapıyor.", "Annem mantıyı hangi gün yapıyor?"),
    ),
    "Russian": (
        ("Моя сестра купила синий велосипед в Казани.", "Где сестра покупала синего велосипеда, в Казань?"),
        ("У меня аллергия на орехи и мёд.", "На какой орех у меня аллергии, мед?"),
        ("Наши собаки боятся грозы.", "Чего боится наша собака?"),
        ("Я изучаю японский язык по вечерам.", "Когда я изучал японского языка?"),
        ("Бабушка печёт пироги с капустой.", "Кто печет пирог с капустами?"),
        ("Мы сняли квартиру рядом с библиотекой.", "Какие квартиры около библиотеки мы снимали?"),
    ),
    "Ukrainian": (
        ("Мій брат працює лікарем у Львові.", "Де працює мій брат, лікар?"),
        ("Ми посадили дві яблуні біля хати.", "Де посадили яблуню?"),
        ("Донька любить малювати їжачків.", "Що любить малювати донька?"),
    ),
    "Greek": (
        ("Η αδερφή μου μένει στη Θεσσαλονίκη.", "Πού μένει η αδερφη μου;"),
        ("Αγόρασα ένα κόκκινο ποδήλατο.", "Τι χρώμα έχουν τα ποδήλατα, κόκκινα;"),
        ("Ο γιατρός μου απαγόρευσε τον καφέ.", "Τι απαγόρευσαν οι γιατροί, καφέδες;"),
    ),
    "Arabic": (
        ("أختي تعمل طبيبة في مستشفى القاهرة.", "أين تعمل الطبيبة أختي؟"),
        ("اشتريتُ سيّارةً حمراء من جارنا.", "ما لون السيارة التي اشتريت من الجار؟"),
        ("عندي حساسية من الفول السوداني.", "هل عندي الحساسية من فول سوداني؟"),
        ("نسافر كل صيف إلى مدينة الإسكندرية.", "أين نسافر في الصيف، اسكندرية؟"),
        ("كلبنا يخاف من الرعد.", "ممّ يخاف الكلب؟"),
        ("أتعلم العزف على العود منذ سنتين.", "على ماذا أتعلم عزف عود؟"),
    ),
    "Persian": (
        ("خواهرم در شیراز کتاب‌فروشی دارد.", "کتاب فروشی خواهر در کجاست؟"),
        ("گربه‌ی ما ماهی دوست دارد.", "گربه چه دوست دارد؟"),
        ("دیروز سه درخت سیب کاشتیم.", "چند درخت سیب داریم؟"),
    ),
    "Hebrew": (
        ("אחותי קנתה בית ליד הים בחיפה.", "איפה הבית של אחותי, חיפה?"),
        ("הכלב שלנו מפחד מרעמים.", "ממה מפחד כלב?"),
        ("אני לומד לנגן בגיטרה כל ערב.", "מתי אני מנגן גיטרה?"),
        ("יש לי אלרגיה לבוטנים.", "בוטנים או אלרגיה?"),
        ("סבתא אופה עוגת גבינה לשבת.", "מי אופה עוגת הגבינה?"),
        ("נסענו ברכבת לירושלים.", "איך נסענו אל ירושלים, רכבת?"),
    ),
    "Hindi": (
        ("मेरी बहन जयपुर में किताबों की दुकान चलाती है।", "बहन किताब की दुकान कहाँ चलाती है?"),
        ("मुझे मूंगफली से एलर्जी है।", "मुझे किससे एलर्जी है, मूंगफली?"),
        ("हमारा कुत्ता गाजर खाता है।", "कुत्ते गाजर खाते हैं क्या?"),
        ("दादी हर रविवार खीर बनाती हैं।", "खीर कौन बनाता है, दादी?"),
        ("मैं शाम को तबला सीखता हूँ।", "मैं तबला कब सीखती हूँ?"),
        ("हमने लाल रंग की गाड़ियाँ खरीदीं।", "लाल गाड़ी किसने खरीदी?"),
    ),
    "Chinese": (
        ("我妹妹在成都开了一家书店。", "妹妹的书店在哪里？"),
        ("我对花生过敏，不能吃花生酱。", "我对什么过敏？花生吗？"),
        ("我们家的狗叫豆豆，最怕打雷。", "豆豆怕什么，打雷吗"),
        ("去年夏天我们坐火车去了西藏。", "什么时候去西藏坐火车？"),
        ("医生让我少喝咖啡。", "医生说咖啡怎么样？"),
        ("奶奶每个星期天包饺子。", "谁包饺子？"),
    ),
    "Japanese": (
        ("妹は京都で小さな喫茶店を開きました。", "京都の喫茶店は誰が開いたの？"),
        ("私はピーナッツアレルギーがあります。", "ピーナッツのアレルギーは？"),
        ("うちの犬は雷が怖いです。", "犬は雷をどう思う？"),
        ("去年の夏、北海道へ自転車で旅行しました。", "自転車で北海道に行ったのはいつ？"),
        ("祖母は毎週日曜日に餃子を作ります。", "餃子を作るのは誰？祖母？"),
        ("ﾋﾟｱﾉを習い始めて三年になります。", "ピアノは何年習っている？"),
    ),
    "Korean": (
        ("여동생이 부산에서 서점을 열었어요.", "부산의 서점은 누가 열었지?"),
        ("저는 땅콩 알레르기가 있어요.", "땅콩 알레르기는?"),
        ("우리 강아지는 천둥을 무서워해요.", "강아지가 천둥이 무섭대?"),
        ("작년 여름에 제주도로 여행을 갔어요.", "제주도 여행은 언제였지?"),
        ("할머니께서 일요일마다 만두를 빚으세요.", "만두는 할머니가 언제 빚어?"),
        ("의사가 커피를 줄이라고 했어요.", "커피에 대해 의사는 뭐라고 했지?"),
    ),
    "Thai": (
        ("น้องสาวของฉันเปิดร้านหนังสือที่เชียงใหม่", "ร้านหนังสือของน้องสาวอยู่ที่ไหน"),
        ("ฉันแพ้ถั่วลิสง", "แพ้อะไร ถั่วลิสงหรือ"),
        ("หมาของเรากลัวฟ้าร้อง", "หมากลัวอะไร"),
        ("ปีที่แล้วเราไปเที่ยวภูเก็ตด้วยรถไฟ", "ไปภูเก็ตด้วยรถไฟเมื่อไหร่"),
        ("คุณหมอบอกให้ลดกาแฟ", "กาแฟ หมอบอกว่าอย่างไร"),
        ("ยายทำขนมครกทุกวันอาทิตย์", "ใครทำขนมครก"),
    ),
    "Vietnamese": (
        ("Em gái tôi mở tiệm sách ở Huế.", "Tiệm sách của em gái ở đâu, Hue?"),
        ("Con chó của tôi sợ sấm sét.", "Chó sợ gì, sấm à?"),
        ("Bà nội gói bánh chưng ngày Tết.", "Ai gói banh chung?"),
    ),
    "Code": (
        ("The function parse_http_header in request_parser.py drops duplicates.", "What does parse_http_header drop?"),
        (
            "We renamed getUserProfile to fetchAccountDetails last sprint.",
            "what happened to the user profile getter, fetch account details?",
        ),
        ("The service is written in C++ and its bindings in Rust.", "Which service uses C++?"),
        ("Our billing tool is a C# program.", "Which program is in C#?"),
        ("Error E1042 came from HTTPServerError in the gateway.", "What raised e1042, an http server error?"),
        ("Pin numpy==1.26.4 because v2.0 breaks the wheel.", "Which numpy, 1.26.4 or v2.0?"),
    ),
    "Emoji": (
        ("Finally got my 🍕 oven installed!", "what did I say about 🍕"),
        ("Moving to 🇯🇵 in autumn.", "when do I go to 🇯🇵"),
        ("👩🏽‍🚀 is what Lena wants to become", "who wants to be 👩‍🚀"),
        ("Grandpa sends ❤️ every morning", "❤ from whom"),
    ),
    "Mixed": (
        ("Mein Lieblingsframework ist FastAPI, deployed on Kubernetes.", "Which framework do I like, FastAPI or so?"),
        ("我在 Google 工作，用 Python 写 pipeline。", "我在 Google 用什么语言？"),
        ("Мой ник на GitHub — kotofey42.", "What is my GitHub ник, kotofey42?"),
        ("The dish Königsberger Klopse reminds me of grandma.", "Which dish, Konigsberger Klopse?"),
        ("東京のオフィスは Shibuya にあります。", "Where is the Shibuya オフィス?"),
        ("My Schwiegermutter visits us every abril.", "Who is the Schwiegermutter that visits in abril?"),
    ),
}
"""By language: (what was said, what is asked)."""

"""Plain facts that a user tells, and questions for them in other words; written by us, no tests.

`EXACT` wants something word for word: a quoted phrase, an order number, an identifier. `LIKED` wants what somebody
likes or does not. Beside each right text stand others that hold the same words.
"""

from __future__ import annotations

FACTS = (
    ("My daughter Mia is allergic to peanuts.", "What is my daughter allergic to?"),
    ("We are moving to Lisbon in September because of my new job.", "Which city are we moving to, and when?"),
    ("I drive an old blue Saab that my grandfather gave me.", "What kind of car do I have?"),
    ("My sister Ines moved to Porto in March and works at the harbour office.", "Where does my sister Ines live?"),
    ("My dog Rex is afraid of thunder.", "What is my dog afraid of?"),
    ("We painted the kitchen green last summer.", "Which colour has the kitchen?"),
    ("My train to work leaves at 7:40 from platform 3.", "When does my train leave?"),
    ("I prefer window seats on long flights.", "Where do I want to sit on a plane?"),
    ("My favourite author is Ursula Le Guin.", "Who do I like to read?"),
    ("I hate coriander, it tastes like soap to me.", "Which herb do I dislike?"),
    ("The gym on Mill Street costs 29 euros a month.", "How much do I pay for the gym?"),
    ("I broke my left wrist skiing in 2019.", "Did I ever break a bone?"),
    ("Tom works night shifts at the hospital.", "When is Tom at work?"),
    ("I am vegetarian since I was sixteen.", "Can I eat steak?"),
    ("My landlord is called Mr Okafor.", "Who do I rent from?"),
    ("The wifi password is hidden behind the fridge magnet.", "Where is the wifi password?"),
    ("I started learning Finnish in January.", "Which language am I learning?"),
    ("My brother Leo plays the trombone in a ska band.", "What instrument does Leo play?"),
    ("I take 20 mg of omeprazole every morning.", "What medication do I take?"),
    ("My flight to Oslo is at 6:15 on Friday.", "What time do I fly to Oslo?"),
)

EXACT = (
    (
        'Who said "time is a thief"?',
        'Mum always says "time is a thief" when the summer ends.',
        ("The thief had no time to get away, said the police.", "Is there time to read about the art thief today?"),
    ),
    (
        'Where did I write "call the bank first"?',
        "Note on the fridge: call the bank first.",
        ("First I call mum, then the bank opens.", "The bank will call me first thing tomorrow."),
    ),
    (
        'What does "not my circus" mean to Jan?',
        "Jan says not my circus whenever the project goes wrong.",
        ("Jan took my niece to the circus, not the zoo.", "The circus is not in town, Jan told me."),
    ),
    (
        "What did order 4471-B contain?",
        "Order 4471-B was two lamps and a shade.",
        ("Order 4471-A was a rug.", "Order 4417-B was a bookshelf.", "My order number 1744 had chairs."),
    ),
    (
        "What does foo_bar() return?",
        "foo_bar() returns the number of rows.",
        ("bar_foo() returns nothing.", "foo() returns a list, bar() returns a dict."),
    ),
    (
        "Whose address is ann.lee@example.org?",
        "Ann Lee can be reached at ann.lee@example.org.",
        ("Lee Ann can be reached at lee.ann@example.com.", "Ann lives near Lee Street, her address is on the card."),
    ),
    (
        "What broke in version 2.4.1?",
        "Version 2.4.1 broke the CSV export.",
        ("Version 2.1.4 broke the login page.", "Version 2.4.0 broke nothing.", "Version 2.14 broke the search."),
    ),
    (
        "What happened on ticket ABC-1234?",
        "ABC-1234: the crash on startup is fixed.",
        ("ABC-1243: the logo is blurred.", "ABC-2134: upload times out."),
    ),
    (
        "What is the invoice RE-2023-0815 about?",
        "RE-2023-0815 is for the roof repair.",
        ("RE-2023-0851 is for the plumber.", "Invoice 0815 from 2022 was for tyres."),
    ),
)

LIKED = (
    (
        "What do I like to drink?",
        "I always order a flat white with oat milk.",
        ("My sister likes to drive fast.", "We should drink less at parties."),
    ),
    ("What food do I hate?", "I can not stand olives.", ("The food at the new place is fine.", "I hate being late.")),
    (
        "What is my favourite colour?",
        "I would paint everything turquoise if I could, I love it.",
        ("The colour of the car is grey.", "My favourite aunt is Rosa."),
    ),
    (
        "Do I prefer trains or planes?",
        "I would rather take the train than fly.",
        ("The plane to Rome leaves at nine.", "Trains were late again yesterday."),
    ),
    (
        "What kind of music do I enjoy?",
        "I listen to baroque cello suites all day.",
        ("The music at the wedding was loud.", "I enjoy long walks."),
    ),
    (
        "What should I avoid cooking for Nina?",
        "Nina dislikes mushrooms and never eats them.",
        ("Nina is cooking for us on Sunday.", "I should avoid the motorway."),
    ),
)

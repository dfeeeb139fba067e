"""What pupils read besides the labels of index.html: who answers, why it takes time, what went wrong."""

PHILOSOPHERS = {
    "spinoza": {
        "name": "Spinoza",
        "dates": "1632-1677",
        "line": "Comprendre les causes de ce que tu ressens, et agir davantage.",
    },
    "bergson": {
        "name": "Bergson",
        "dates": "1859-1941",
        "line": "Regarder en toi-même, et retrouver le temps qui dure.",
    },
    "kant": {
        "name": "Kant",
        "dates": "1724-1804",
        "line": "Penser sans tuteur, et chercher ce que tu peux vouloir pour tous.",
    },
}

WAITING = {
    "COLD_START": "Le modèle se réveille : compte environ deux minutes. Ta question partira toute seule.",
    "BUSY": "Tu es dans la file : beaucoup d’élèves posent une question. La tienne partira toute seule.",
    "STANDIN": "Modèle d’essai : il montre que la page fonctionne, non comment le philosophe parle.",
}
"""By code: what a question waits for, and the stand-in's notice."""

STATES = {
    "thinking": "{name} réfléchit…",
    "slow": "{name} réfléchit encore : il répond aussi à d’autres élèves.",
    "queued": "Tu es dans la file : {rank} avant toi.",
    "writing": "{name} répond…",
    "done": "{name} a répondu.",
    "stopped": "Réponse arrêtée. Tu peux reposer ta question, ou en poser une autre.",
    "copied": "Réponse copiée.",
    "uncopied": "Ton navigateur refuse la copie : sélectionne le texte à la main.",
    "cleared": "Nouvelle conversation avec {name}.",
    "restored": "La conversation est rétablie.",
    "silent": "{name} se tait depuis plus de vingt secondes.",
    "more": "Continue.",
    "first": "Pour commencer, une question",
    "first_of_lesson": "Pour commencer, la question du cours",
    "placeholder": "Ta question à {name}",
    "room": "encore {count} caractères",
    "room_one": "encore 1 caractère",
    "join": "Joindre des passages pour {name}",
    "joined": "{count} passages joints pour {name}",
    "joined_one": "1 passage joint pour {name}",
    "with": "Avec {count} passages joints",
    "with_one": "Avec 1 passage joint",
    "with_same": "Avec les mêmes {count} passages joints",
    "with_same_one": "Avec le même passage joint",
    "unread": "Tes passages n’ont pas été lus : ils sont trop longs. Garde l’essentiel, puis repose ta "
    "question.",
    "unread_but_one": "Tes passages n’ont pas tous été lus : à peu près le premier sur {count}. Garde "
    "l’essentiel, puis repose ta question.",
    "unread_some": "Tes passages n’ont pas tous été lus : à peu près les {read} premiers sur {count}. Garde "
    "l’essentiel, puis repose ta question.",
    "passages_too_long": "Tes passages sont trop longs : {limit} caractères au plus, {count} de trop.",
    "link_copied": "Lien copié.",
    "lesson_too_long": "Trop long : {message} caractères pour la question et {passages} pour les passages, "
    "au plus.",
    "no_code": "Trop long pour un code à photographier : donne le lien.",
    "code": "Le lien, à photographier avec un téléphone",
    "too_long": "Ta question est trop longue : {limit} caractères au plus.",
}
"""By what the page is doing. `{name}` is the philosopher's name."""

NOTES = {
    "STANDIN": WAITING["STANDIN"],
    "LENGTH": "Réponse coupée : elle a atteint sa longueur limite.",
    "DEADLINE": "Réponse coupée : le temps était écoulé.",
    "LOOP": "Réponse arrêtée par le serveur : elle se répétait.",
    "STOPPED": "Réponse interrompue.",
    "NONE": "Pas de réponse.",
}
"""By code: notes on what an answer is worth, which stay with it."""

ERRORS = {
    "BAD_INPUT": "Cette question ne peut pas être posée telle quelle. Raccourcis-la, ou raccourcis les "
    "passages que tu as joints, puis repose-la.",
    "UNAUTHORIZED": "Le philosophe refuse la clé de cette page. Préviens ton professeur.",
    "BUSY": "Trop d’élèves parlent en même temps. Attends une minute, puis repose ta question.",
    "COLD_START": "Le modèle ne s’est pas réveillé à temps. Repose ta question dans une minute ; si cela "
    "dure, préviens ton professeur.",
    "CONNECTION": "La connexion s’est interrompue. Vérifie ton réseau, puis repose ta question.",
    "OTHER": "Le philosophe ne répond pas. Repose ta question dans une minute ; si cela dure, "
    "préviens ton professeur.",
}
"""By the code of a refusal; OTHER is for every code that is not here. Each says what to do."""

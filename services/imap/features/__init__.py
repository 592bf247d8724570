"""Everything this server speaks: the one tuple. CAPABILITY, dispatch and ENABLE are derived from it."""

from services.imap.feature import Feature
from services.imap.features import (
    append,
    auth,
    copy,
    enable,
    expunge,
    fetch,
    id,
    idle,
    list,
    mailboxes,
    namespace,
    search,
    select,
    session,
    status,
    store,
)

FEATURES: tuple[Feature, ...] = (
    session.BASE,
    session.LITERAL_PLUS,
    auth.FEATURE,
    id.FEATURE,
    enable.FEATURE,
    idle.FEATURE,
    namespace.FEATURE,
    list.LIST,
    list.EXTENDED,
    list.LIST_STATUS,
    mailboxes.FEATURE,
    mailboxes.SPECIAL_USE,
    status.STATUS,
    status.SIZE,
    select.SELECT,
    select.UNSELECT,
    select.CONDSTORE,
    select.QRESYNC,
    append.APPEND,
    append.MULTIAPPEND,
    fetch.FEATURE,
    search.SEARCH,
    search.ESEARCH,
    search.SEARCHRES,
    search.WITHIN,
    store.FEATURE,
    copy.COPY,
    copy.MOVE,
    expunge.FEATURE,
)

# Commands that look at a literal before the client sends it; all others take small ones only.
OFFERS = {"APPEND": append.offer}

//! The words that the generator draws from.
//!
//! Order matters: the draws are Zipf-weighted, so the first entry of a table is the common one.
//! Every entry is JSON text already (escapes included), because it is copied into the line as it
//! stands. Changing an entry changes the bytes of every seed.

/// A customer of the generated world.
pub(super) struct Tenant {
    pub(super) name: &'static str,
    /// Share of the sessions, in percent.
    pub(super) percent: u32,
    /// Scheme and host of its pages.
    pub(super) origin: &'static str,
}

/// Unequal on purpose: files are sorted by tenant, and a large one must not hide the small ones.
pub(super) const TENANTS: [Tenant; 6] = [
    Tenant { name: "acme", percent: 60, origin: "https://acme.example" },
    Tenant { name: "borealis", percent: 18, origin: "https://www.borealis.example" },
    Tenant { name: "cobalt", percent: 10, origin: "https://cobalt.example" },
    Tenant { name: "dune", percent: 6, origin: "https://shop.dune.example" },
    Tenant { name: "ember", percent: 4, origin: "https://ember.example" },
    Tenant { name: "fjord", percent: 2, origin: "https://fjord.example" },
];

/// Path and title of a page; the generator appends a number to the path of later variants.
pub(super) const PAGES: [(&str, &str); 40] = [
    ("/", "Home"),
    ("/products", "All products"),
    ("/products/grinder", "Kaffeemühle Modell 3 – leise & schnell"),
    ("/pricing", "Pricing"),
    ("/blog", "Blog"),
    ("/cart", "Your cart"),
    ("/blog/cold-brew", "Cold brew in six steps ☕"),
    ("/de/produkte", "Produkte"),
    ("/search", "Search"),
    ("/account", "Account"),
    ("/ja/guide", "はじめての方へ"),
    ("/docs/start", "Getting started"),
    ("/fr/cafe", "Le café, de la fève à la tasse"),
    ("/checkout", "Checkout"),
    ("/products/filter", "Paper filters, 100 pieces"),
    ("/blog/water", "Why water matters \\\"so much\\\""),
    ("/es/ofertas", "¡Ofertas de otoño! 🍂"),
    ("/docs/api", "API reference"),
    ("/about", "About us"),
    ("/zh/products", "全部产品"),
    ("/careers", "Careers"),
    ("/pl/oferta", "Oferta – młynki żarnowe"),
    ("/docs/faq", "FAQ"),
    ("/ru/magazin", "Магазин кофе"),
    ("/products/kettle", "Gooseneck kettle 0.8 l"),
    ("/blog/2026/10", "October 2026"),
    ("/contact", "Contact"),
    ("/ar/home", "الصفحة الرئيسية"),
    ("/terms", "Terms of service"),
    ("/hi/khabar", "ताज़ा ख़बरें"),
    ("/privacy", "Privacy"),
    ("/ko/news", "새 소식"),
    ("/el/kafes", "Ελληνικός καφές"),
    ("/he/shop", "חנות הקפה"),
    ("/products/%C3%A9dition", "\\u00c9dition limit\\u00e9e \\ud83c\\udf81"),
    ("/th/menu", "เมนูวันนี้"),
    ("/blog/roast", "Light, medium, dark: a roast guide"),
    ("/status", "Status"),
    ("/uk/kava", "Кава з доставкою"),
    ("/newsletter", "Newsletter 📬"),
];

/// User agents of browsers.
pub(super) const BROWSERS: [&str; 14] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:151.0) Gecko/20100101 Firefox/151.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 Safari/605.1.15",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0",
    "Mozilla/5.0 (X11; Linux x86_64; rv:151.0) Gecko/20100101 Firefox/151.0",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/29.0 Chrome/136.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/155.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Android 16; Mobile; rv:151.0) Gecko/151.0 Firefox/151.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36 OPR/134.0.0.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
];

/// User agents of mobile applications.
pub(super) const APPS: [&str; 6] = [
    "Beans/5.2.1 (iPhone17,1; iOS 26.1)",
    "Beans/5.2.0 (Android 16; Pixel 9)",
    "Beans/5.1.4 (Android 14; SM-A546B)",
    "Beans/5.2.1 (iPad14,3; iPadOS 26.1)",
    "Beans/4.9.9 (Android 11; Redmi Note 8)",
    "Beans/3.0 (iPhone10,4; iOS 16.7)",
];

/// User agents of server-side libraries.
pub(super) const SERVERS: [&str; 3] =
    ["events-python/2.3.1", "@events/node 3.1.0", "events-ruby/2.5 (ruby 3.4.2; x86_64-linux)"];

/// Where sessions come from.
pub(super) const REFERRERS: [&str; 8] = [
    "https://www.google.com/",
    "https://duckduckgo.com/",
    "https://www.bing.com/search?q=coffee+grinder",
    "https://t.co/aZ3kQ9",
    "https://news.ycombinator.com/item?id=46123456",
    "https://www.reddit.com/r/espresso/",
    "android-app://com.google.android.gm/",
    "https://yandex.ru/search/?text=%D0%BA%D0%BE%D1%84%D0%B5",
];

/// Query strings of the first page of a session.
pub(super) const CAMPAIGNS: [&str; 6] = [
    "?utm_source=google&utm_medium=cpc&utm_campaign=autumn",
    "?utm_source=newsletter&utm_medium=email",
    "?gclid=Cj0KCQjw2a6wBhCVARIsABPeH1v",
    "?ref=partner-17",
    "?utm_source=instagram&utm_content=story%20%F0%9F%8D%82",
    "?utm_campaign=%C3%BCbersicht&lang=de",
];

/// Search words, percent-encoded for the URL and as JSON text.
pub(super) const SEARCHES: [(&str, &str); 6] = [
    ("grinder", "grinder"),
    ("cold+brew", "cold brew"),
    ("kaffeem%C3%BChle", "kaffeemühle"),
    ("%E6%8A%B9%E8%8C%B6", "抹茶"),
    ("%D1%87%D0%B0%D0%B9%D0%BD%D0%B8%D0%BA", "чайник"),
    ("0.8+l+%22kettle%22", "0.8 l \\\"kettle\\\""),
];

/// Names of people, with a part of an address.
pub(super) const PEOPLE: [(&str, &str); 16] = [
    ("Maria Schmidt", "Köln"),
    ("James Okafor", "Leeds"),
    ("Łukasz Żółkiewski", "Łódź"),
    ("山田 花子", "東京"),
    ("Zoë Bélanger", "Montréal"),
    ("Иван Петров", "Пермь"),
    ("José Núñez", "Málaga"),
    ("李小龙", "广州"),
    ("Siobhán O'Neill", "Corcaigh"),
    ("محمد علي", "القاهرة"),
    ("Nguyễn Thị Hương", "Huế"),
    ("김민준", "부산"),
    ("Ελένη Παπαδοπούλου", "Πάτρα"),
    ("प्रिया शर्मा", "जयपुर"),
    ("Bob \\\"Bobby\\\" Tables", "Null Island"),
    ("Ay\\u015fe Y\\u0131lmaz", "\\u0130zmir"),
];

/// What people press. The last two are one name in two spellings: a reader that does not decode
/// escapes counts them apart.
pub(super) const CLICKS: [(&str, &str); 6] = [
    ("Button Clicked", "Add to cart"),
    ("Button Clicked", "Jetzt kaufen 🎉"),
    ("Link Followed", "Read more →"),
    ("Signup Started", "Try it"),
    ("Menü geöffnet", "Menü"),
    ("Men\\u00fc ge\\u00f6ffnet", "Men\\u00fc"),
];

/// Screens of the mobile application.
pub(super) const SCREENS: [&str; 8] =
    ["Home", "Product", "Cart", "Search", "Profile", "Orders", "Настройки", "通知"];

/// Languages of clients.
pub(super) const LOCALES: [&str; 10] =
    ["en-US", "de-DE", "en-GB", "ja-JP", "fr-FR", "es-ES", "pl-PL", "zh-CN", "ru-RU", "ar-EG"];

/// Time zones of clients, drawn independently of the language.
pub(super) const ZONES: [&str; 6] = [
    "Europe/Berlin",
    "America/New_York",
    "Asia/Tokyo",
    "Europe/London",
    "America/Sao_Paulo",
    "Asia/Kolkata",
];

/// Widths and heights of windows.
pub(super) const WINDOWS: [(u32, u32); 6] =
    [(1920, 1080), (390, 844), (1536, 864), (412, 915), (1440, 900), (2560, 1440)];

/// Currencies of orders.
pub(super) const CURRENCIES: [&str; 4] = ["EUR", "USD", "JPY", "PLN"];

/// Log messages of the server-side clients.
pub(super) const LOGS: [(&str, &str); 4] = [
    ("info", "order exported"),
    ("warn", "retrying payment,\\nattempt 2 of 5"),
    ("error", "upstream said \\\"503\\\" for C:\\\\jobs\\\\7"),
    ("debug", "cache miss ✗"),
];

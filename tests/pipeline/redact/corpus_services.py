# ruff: noqa: E501 - lines of logs are long
"""A second corpus, by kind of service: lines written before the rules were tried on them. Labelled as in `corpus`; `␤`
is the end of a line within one.

Tried for the first time, the rules found .75 of the secrets above `_LATER`, and .96 of what they found was one; of
those in `_LATER`, when they had been mended by the others, .82 and .95. Then they were mended by these, too; and of
those in `_USUAL` they found 1.0 and .99, at once.

Between `~` stands what is drawn anew: `~a20~` are twenty letters and digits, `h` hexadecimal digits, `d` digits, `u`
letters, digits, - and _, `b` base64, `U` capitals and digits, `l` small letters and digits; `~jwt~`, `~card~`, `~amex~`,
`~uuid~` and `~pem~` are what they say.
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
from collections.abc import Callable, Iterator

_rnd = random.Random(4711)  # the same on every run
_ALNUM = string.ascii_letters + string.digits
_SIGNS = {
    "a": _ALNUM,
    "h": "0123456789abcdef",
    "d": string.digits,
    "u": _ALNUM + "-_",
    "b": _ALNUM + "+/",
    "U": string.ascii_uppercase + string.digits,
    "l": string.ascii_lowercase + string.digits,
}


def _drawn(signs: str, length: int) -> str:
    drawn = [_rnd.choice(_SIGNS[signs]) for _ in range(length)]
    if signs in "aubUl" and length > 3:  # both kinds, as any generator of keys gives almost always
        drawn[1], drawn[-2] = _rnd.choice(string.digits), "Q" if signs in "U" else "q"
    return "".join(drawn)


def _jwt() -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'typ': 'JWT', 'alg': 'RS256', 'kid': _drawn('l', 8)})}.{part({'sub': _drawn('d', 8)})}.{_drawn('u', 86)}"


def _card(begin: str, length: int) -> str:
    digits = begin + _drawn("d", length - len(begin) - 1)
    total = 0
    for place, sign in enumerate(reversed(digits)):
        number = int(sign) * (1 if place % 2 else 2)
        total += number - 9 if number > 9 else number
    return digits + str(-total % 10)


def _pem() -> str:
    body = "\n".join(_drawn("b", 64) for _ in range(6))
    return f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----"


_WHOLE: dict[str, Callable[[], str]] = {
    "jwt": _jwt,
    "pem": _pem,
    "card": lambda: _card(_rnd.choice(("4", "51", "2221")), 16),
    "amex": lambda: _card("34", 15),
    "uuid": lambda: "-".join(
        (_drawn("h", 8), _drawn("h", 4), "4" + _drawn("h", 3), "b" + _drawn("h", 3), _drawn("h", 12))
    ),
}
_DRAW = re.compile(r"~(?:(jwt|pem|card|amex|uuid)|([ahdubUl])(\d+))~")


def _filled(lines: str, times: int = 1) -> Iterator[str]:
    """The lines of a text with what is to be drawn; `␤` is the end of a line within one."""

    def draw(found: re.Match[str]) -> str:
        return _WHOLE[found[1]]() if found[1] else _drawn(found[2], int(found[3]))

    for line in lines.strip().splitlines():
        for _ in range(times):
            yield _DRAW.sub(draw, line).replace("␤", "\n")


def secrets() -> Iterator[str]:
    """Lines with at least one secret each."""
    for part in (
        _WEB,
        _DATABASES,
        _CLOUD,
        _PROVIDERS,
        _PIPELINES,
        _MAIL_AND_MONEY,
        _SETTINGS,
        _TRACES,
        _PROMPTS,
        _CLI,
        _LATER,
        _USUAL,
    ):
        yield from _filled(part)


def look_alikes() -> Iterator[str]:
    """Lines without a secret."""
    yield from _filled(_DRAWN_BENIGN, times=4)
    yield from _filled(_BENIGN)
    yield from _filled(_BENIGN_LATER)
    yield from _filled(_BENIGN_USUAL)


_WEB = r"""
10.2.3.4 - - [21/Nov/2026:16:33:41 +0000] "GET /reset?token=«~a32~»&lang=de HTTP/1.1" 200 512 "-" "curl/8.5.0"
10.2.3.4 - - [21/Nov/2026:16:33:41 +0000] "POST /login?user=bob&password=«Winter2026!» HTTP/1.1" 302 0
"GET /oauth/callback?state=xyz&access_token=«~a40~»&token_type=bearer HTTP/2" 200
GET /verify?email=«nina.weber@example.org»&ok=1 404
> GET /v1/me HTTP/1.1␤> Host: api.example.com␤> Authorization: Bearer «~a40~»␤> Accept: */*
> Authorization: Basic «~b28~==»␤> User-Agent: curl/8.5.0
Authorization: token «~h40~»
authorization=Basic «~b32~»
proxy-authorization: Basic «~b24~=»
Cookie: «JSESSIONID=~U32~; theme=dark»
set-cookie: «connect.sid=s%3A~a32~.~a43~; Path=/; HttpOnly; SameSite=Lax»
X-Auth-Token: «~h32~»
x-api-key: «~a32~»
X-Amz-Security-Token: «~b120~»
X-CSRF-Token: «~b44~=»
X-Vault-Token: «s.~a24~»
request headers: {'Host': 'api.example.com', 'Authorization': 'Bearer «~a36~»', 'Accept': '*/*'}
headers=[('host', 'shop'), ('authorization', 'Bearer «~a36~»'), ('accept', '*/*')]
headers=[(b'host', b'shop'), (b'authorization', b'Bearer «~a36~»'), (b'accept', b'*/*')]
{"headers":{"x-api-key":["«~a40~»"],"content-type":["application/json"]}}
form data: username=alice&password=«correcthorse9»&remember=on
body: grant_type=password&username=carl&password=«S3cur3Pa55»&scope=read
body: grant_type=client_credentials&client_id=shop&client_secret=«~a40~»
redirect to https://login.example.com/cb?next=%2Fhome%3Ftoken%3D«~a32~»
query: q=password%3D«hunter2»&page=1
POST body user%3Dbob%26password%3D«hunter2pw»%26go%3D1
{"username": "dora", "password": "«p@ss w0rd»", "mfa": false}
{"level":"debug","msg":"login","req":{"body":{"email":"«eva@example.net»","password":"«Lilac-77»"}}}
{"msg":"{\"user\":\"bob\",\"password\":\"«hunter2»\"}"}
{"msg":"{\\\"user\\\":\\\"bob\\\",\\\"password\\\":\\\"«hunter2»\\\"}"}
{"log":"{\"payload\":\"{\\\"api_key\\\":\\\"«~a24~»\\\",\\\"n\\\":1}\"}"}
level=info msg="user signed in" email=«f.schmidt@example.de» ip=10.0.0.1
level=debug msg="calling upstream" url="https://«svc:~a20~»@internal.example.com/x" dur=12ms
ws connect wss://stream.example.com/ws?token=«~jwt~»
session cookie refreshed: sessionid=«~l32~»
Invalid CSRF token '«~a64~»' for session
login failed for user grace with password «Sommer#2026»
user heidi tried password '«qwertz123»'
Rejected bearer «~a48~» (expired 3 min ago)
jwt «~jwt~» is expired
Decoded id_token=«~jwt~»
"refresh_token": "«~u64~»"
"id_token":"«~jwt~»","expires_in":3600
cf_clearance=abc; session_token=«~u43~»
graphql variables: {"input":{"email":"«ivan@example.com»","newPassword":"«Tr33house»"}}
mutation { login(email: "«judy@example.com»", password: "«b4nana!»") { id } }
<wsse:Password Type="PasswordText">«S0apy»</wsse:Password>
<soap:Header><apiKey>«~a32~»</apiKey></soap:Header>
<input type="hidden" name="csrf_token" value="«~a40~»">
webhook signature mismatch, secret «whsec_~a32~»
password reset link: https://shop.example.com/reset/confirm?uid=12&reset_token=«~a40~»
magic link https://app.example.com/auth/verify?otp=«481516»&email=«kim@example.org»
OTP for order login is «493021»
verification code: «208841» sent to «+49 171 5550123»
"""

_DATABASES = r"""
psycopg2.OperationalError: connection to "postgres://«app:Fr3sh!fruit»@10.0.0.5:5432/shop" failed
jdbc:mysql://db.internal:3306/shop?user=app&password=«Kiwi_99x»&useSSL=true
jdbc:sqlserver://db;databaseName=shop;user=sa;password=«Pa$$w0rd1»;encrypt=true
Server=tcp:shop.database.windows.net,1433;Initial Catalog=shop;User ID=app;Password=«Xy7-lemon»;Encrypt=True;
Data Source=db1;User Id=app;Pwd=«lemonTree4»;
host=db1 port=5432 user=app password=«s3a-lion» dbname=shop sslmode=require
host='db1' user='app' password='«s3a lion»' dbname='shop'
mongodb://«root:~a16~»@mongo-0,mongo-1:27017/?replicaSet=rs0
redis://default:«~a24~»@redis-1:6379/0
rediss://«:~a32~»@cache.example.net:6380
amqps://«mq-user:~a18~»@rabbit.example.com/vhost
kafka sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="app" password="«~a16~»";
sasl_plain_username=app sasl_plain_password=«~a20~» security_protocol=SASL_SSL
CREATE USER app WITH PASSWORD '«mellon7»';
ALTER ROLE app PASSWORD '«sp3ak-friend»'
CREATE USER 'app'@'%' IDENTIFIED BY '«mellon77»';
GRANT ALL ON shop.* TO 'app'@'10.%' IDENTIFIED BY '«mellon78»'
ATTACH DATABASE 'x.db' AS x KEY '«~h32~»'
snowflake://«etl:~a16~»@acme-xy123/db/schema?warehouse=wh
snowflake.connector.connect(user='etl', password='«Sn0wball!»', account='acme')
clickhouse://«default:~a12~»@ch:9000/default
UPDATE users SET email='«lars@example.se»', password_hash='«$2b$12$~a53~»' WHERE id=4
INSERT INTO customers (name, email, phone) VALUES ('Mia', '«mia@example.fi»', '«+358 40 1234567»')
DETAIL:  Key (email)=(«noah@example.com») already exists.
Duplicate entry '«olivia@example.com»' for key 'users.email'
ldap_bind: Invalid credentials (49) for cn=admin,dc=example,dc=org with password=«ldapSecret1»
bindpw «ldap-S3cret»
elasticsearch: https://«elastic:~a20~»@es.example.com:9200/_bulk returned 429
engine = create_engine("postgresql+psycopg://«shop:~a14~»@db/shop")
sqlalchemy.exc.ArgumentError: Could not parse rfc1738 URL from string 'mysql://«u:p#w»@h/db'
DSN: «sentry_~a20~»
neo4j auth=('neo4j', '«graph-9-cat»')
couchbase connstr=couchbase://cb user=app pass=«c0uchy»
"""

_CLOUD = r"""
AWS_ACCESS_KEY_ID=«AKIA~U16~» AWS_SECRET_ACCESS_KEY=«~b40~»
aws_access_key_id = «AKIA~U16~»␤aws_secret_access_key = «~b40~»␤aws_session_token = «~b200~==»
credentials: {"AccessKeyId":"«ASIA~U16~»","SecretAccessKey":"«~b40~»","SessionToken":"«~b160~»"}
botocore: CanonicalRequest ... Authorization: AWS4-HMAC-SHA256 Credential=«AKIA~U16~»/20261121/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=«~h64~»
https://b.s3.eu-west-1.amazonaws.com/k.pdf?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=«AKIA~U16~»%2F20261121&X-Amz-Signature=«~h64~»
https://acct.blob.core.windows.net/c/f.csv?sv=2022-11-02&ss=b&srt=o&sp=r&se=2026-12-01T00:00:00Z&sig=«~a30~%2B~a11~%3D»
https://acct.blob.core.windows.net/c?sp=rl&sv=2022-11-02&sr=c&sig=«~b43~=»
DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=«~b86~==»;EndpointSuffix=core.windows.net
Endpoint=sb://acme.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=«~b43~=»
SharedAccessSignature sr=acme.servicebus.windows.net&sig=«~a30~%3D»&se=1760000000&skn=Root
HostName=hub.azure-devices.net;DeviceId=d1;SharedAccessKey=«~b43~=»
InstrumentationKey=~uuid~;ApiKey=«~a40~»
az login --service-principal -u ~uuid~ -p «~a34~» --tenant ~uuid~
AZURE_CLIENT_SECRET=«~a3~8Q~~a34~»
{"type":"service_account","project_id":"shop","private_key_id":"~h40~","private_key":"«-----BEGIN PRIVATE KEY-----\nMIIEvQ~b60~\n~b64~\n-----END PRIVATE KEY-----»\n","client_email":"«svc@shop.iam.gserviceaccount.com»"}
GOOGLE_API_KEY=«AIza~u35~»
google.auth: refreshed, access token «ya29.a0~u120~»
oauth client secret GOCSPX: «GOCSPX-~u28~»
GET https://maps.googleapis.com/maps/api/geocode/json?address=Bonn&key=«AIza~u35~» 200
firebase fcm token «~u22~:APA91b~u134~» is not registered
DIGITALOCEAN_TOKEN=«dop_v1_~h64~»
hcloud token: «~a64~»
LINODE_TOKEN=«~h64~»
cloudflare X-Auth-Key: «~h37~»
CLOUDFLARE_API_TOKEN=«~u40~»
heroku api key «~uuid~»
vault token «hvs.CAESI~u90~» renewed
VAULT_TOKEN=«hvb.~u120~»
terraform: TFE token «~a14~.atlasv1.~a67~»
consul acl token: «~uuid~»
kubectl config set-credentials ci --token=«~jwt~»
kubectl create secret generic db --from-literal=password=«cinnamon4»
data:␤  password: «~b20~==»␤  username: YWRtaW4=
image pull secret {"auths":{"registry.example.com":{"auth":"«~b40~=»"}}}
docker login -u ci -p «dckr_pat_~u27~» docker.io
ecr: docker login --username AWS --password «~b300~» 123456789012.dkr.ecr.eu-west-1.amazonaws.com
"""

_PROVIDERS = r"""
remote: Invalid token ghp_ for user: «ghp_~a36~»
git remote set-url origin https://«x-access-token:ghs_~a36~»@github.com/acme/shop.git
GH_TOKEN «ghu_~a36~» has no scope repo
refresh with «ghr_~a76~»
token «github_pat_~a22~_~a59~» was revoked
CI_JOB_TOKEN «glcbt-64_~u20~»
PRIVATE-TOKEN: «glpat-~u20~»
deploy token «gldt-~u20~» expires tomorrow
runner registered with «glrt-~u20~»
bitbucket app password «ATBB~a32~»
slack: posting with «xoxb-~d12~-~d13~-~a24~»
slack user token «xoxp-~d12~-~d12~-~d12~-~h32~» rejected
SLACK_APP=«xapp-1-A~U10~-~d13~-~h64~»
POST «https://hooks.slack.com/services/T~U9~/B~U10~/~a24~» 200 ok
POST «https://discord.com/api/webhooks/~d18~/~u68~» 204
discord bot started with «M~a23~.~u6~.~u27~»
telegram: https://api.telegram.org/bot«~d10~:AA~u33~»/getUpdates
bot token «~d9~:AA~u33~» conflicts with another instance
stripe: No such customer; key «sk_live_~a24~»
stripe restricted «rk_live_~a99~» may not
using «sk_test_~a24~» in tests
STRIPE_WEBHOOK «whsec_~a32~»
square «EAAA~u60~» authorised
sq token «sq0atp-~u22~» and secret «sq0csp-~u43~»
paypal access token «access_token$production$~l16~$~h32~»
twilio: AccountSid=AC~h32~ AuthToken=«~h32~»
twilio api key «SK~h32~»
curl -u AC~h32~:«~h32~» https://api.twilio.com/2010-04-01/Accounts
sendgrid 403 with «SG.~u22~.~u43~»
mailgun «key-~h32~» is wrong
mailchimp key «~h32~-us14»
postmark X-Postmark-Server-Token: «~uuid~»
openai.AuthenticationError: Incorrect API key provided: «sk-~a48~». You can find
openai key «sk-proj-~u74~T3BlbkFJ~u74~» loaded
OPENAI «sk-svcacct-~u60~7»
anthropic key «sk-ant-api03-~u93~AA» ok
admin «sk-ant-admin01-~u93~AA»
huggingface_hub: using «hf_~a34~»
groq «gsk_~a52~» rate limited
replicate «r8_~a37~»
perplexity «pplx-~a48~»
cohere client made with api_key «~a40~»
xai «xai-~a80~»
openrouter «sk-or-v1-~h64~»
langfuse «sk-lf-~uuid~»
langsmith «lsv2_pt_~h32~_~h10~»
mistral MISTRAL_API_KEY=«~a32~»
deepseek «sk-~h32~» balance is low
npm: «npm_~a36~» published
//registry.npmjs.org/:_authToken=«~uuid~»
twine: password «pypi-AgEIcHlwaS5vcmc~u150~»
rubygems «rubygems_~h48~»
crates «cio~a32~»
nuget key «oy2~l43~»
shopify «shpat_~h32~» for acme.myshopify.com
shopify shared «shpss_~h32~»
new relic «NRAK-~U27~»
datadog DD_API_KEY=«~h32~» DD_APP_KEY=«~h40~»
grafana «glsa_~a32~_~h8~»
grafana cloud «glc_~b100~»
sentry «sntrys_~b100~»
honeycomb x-honeycomb-team: «~a22~»
pagerduty Token token=«~u20~»
atlassian «ATATT3xFfGF0~u160~=~U8~»
linear «lin_api_~a40~»
notion «ntn_~a46~» lacks access
notion «secret_~a43~»
airtable «pat~a14~.~h64~»
figma «figd_~u40~»
dropbox «sl.~u135~»
databricks «dapi~h32~»
planetscale «pscale_pw_~u43~»
supabase «sbp_~h40~»
vercel «vercel_~a24~»
doppler «dp.pt.~a43~»
1password «ops_~u200~»
age «AGE-SECRET-KEY-1~U58~»
facebook «EAACEdEose0cBA~a100~»
twitter bearer «AAAAAAAAAAAAAAAAAAAAA~a80~»
instagram «IGQV~a100~»
algolia admin key «~h32~» used
mapbox «sk.eyJ1~a60~.~u22~»
nvidia «nvapi-~u64~»
fly FlyV1 «fm2_~b150~»
tailscale «tskey-auth-~a12~-~a32~»
"""

_PIPELINES = r"""
+ export DB_PASSWORD=«plum-7-tree»
+ docker run -e POSTGRES_PASSWORD=«pgS3cret» -p 5432:5432 postgres:16
+ curl -u deploy:«~a20~» https://nexus.example.com/repository
+ curl --user ci:«~a16~» -T a.tar https://files.example.com/
+ curl -H "Authorization: Bearer «~a40~»" https://api.example.com
+ curl -H 'X-Api-Key: «~a32~»' https://api.example.com
+ wget --http-user=ci --http-password=«hush4now» https://files.example.com/x
+ mysqldump -u root -p«r00tpw» shop
+ PGPASSWORD=«s3same7» psql -h db -U app shop
+ sshpass -p '«~a12~»' ssh ci@10.0.0.7
+ ansible-playbook site.yml -e "ansible_become_password=«~a12~»"
+ helm upgrade shop ./chart --set db.password=«n3ctar» --set image.tag=1.2.3
+ az storage blob upload --account-key «~b86~==» -f a
+ git clone https://«~a40~»@github.com/acme/private.git
+ git push https://«bob:ghp_~a36~»@github.com/acme/shop.git
+ echo «~a32~» | docker login --password-stdin
+ openssl enc -aes-256-cbc -k «~a16~» -in a -out b
+ gpg --batch --passphrase «open-the-door» -d a.gpg
+ npm config set //registry.npmjs.org/:_authToken «npm_~a36~»
+ vault login «hvs.~u24~»
+ keytool -storepass «chang3it» -keystore a.jks
+ java -Djavax.net.ssl.keyStorePassword=«chang3it» -jar app.jar
+ java -Dspring.datasource.password=«bl00m» -jar app.jar
+ redis-cli -a «~a20~» ping
+ smbclient //nas/share -U 'bob%«n4spw»'
+ twine upload -u __token__ -p «pypi-AgEIcHlwaS5vcmc~u150~» dist/*
+ lftp -e open sftp://«bob:f1lepw»@files.example.com
+ snyk auth «~uuid~»
+ sonar-scanner -Dsonar.login=«~h40~»
+ sonar-scanner -Dsonar.token=«sqp_~h40~»
"""

_MAIL_AND_MONEY = r"""
postfix/smtp[812]: 4F2: to=<«pia@example.com»>, relay=mx.example.com[192.0.2.1]:25, status=sent
postfix/qmgr: from=<«quentin.r@example.org»>, size=1204, nrcpt=1 (queue active)
dovecot: imap-login: Login: user=<«rita@example.net»>, method=PLAIN, rip=192.0.2.9
AUTH PLAIN «~b32~=»
S: 334 UGFzc3dvcmQ6␤C: «~b16~»
From: "Sven K." <«sven.k@example.com»>␤To: «tina@example.org»␤Subject: Invoice
Reply-To: «support+ticket-881@example.com»
bounced: «ulf@mail.example.co.jp» (mailbox full)
newsletter sent to ['«vera@example.com»', '«willi@example.com»', '«xaver@example.de»']
mailto:«yvonne@example.fr»?subject=Hallo
contact «zoe_1990@example.io»; she knows
E-Mail:«anton@example.at»
user:«berta@example.ch»:active
customer=«c.h.r.i.s@example.com»|tier=gold
<«dieter-peter@sub.example.travel»>
user «émile@example.fr» added
user%40example: «gustav%40example.com»
/users/«hanna%40example.org»/orders
slack id U02 mapped to «ines@example.academy».
charged «~card~» 12.00 EUR
card=«~card~» exp=12/28
"pan": "«~card~»"
track2 ;«~card~»=2812101
cc «4111-1111-1111-1111» declined
card ending check: full number «4012 8888 8888 1881»
amex «~amex~» accepted
amex «3782 822463 10005» accepted
diners «30569309025904»
discover «6011000990139424» jcb «3530111333300000»
cardNumber:«5555555555554444»,cvv:«737»
{"card":{"number":"«4242424242424242»","cvc":"«314»","exp_month":4}}
payment_method[card][number]=«4242424242424242»&payment_method[card][cvc]=«123»
IBAN «DE89 3704 0044 0532 0130 00»
iban=«GB82WEST12345698765432»
Konto «AT611904300234573201» belastet
«FR1420041010050500013M02606»,BIC PSSTFRPP
SEPA «NL91ABNA0417164300» -> «BE68539007547034»
compte «CH93 0076 2011 6238 5295 7» crédité
"iban":"«ES9121000418450200051332»"
ssn=«536-90-4399»
SSN: «219 09 9999»
Social Security Number «078-05-1121» given
"ssn":"«457555462»"
applicant («536-22-8726») approved
phone: «(555) 123-4567»
call «555-123-4567» before noon
tel:«+15551234567»
tel «+44 20 7946 0958», fax «+44 20 7946 0959»
Mobile «+91 98765 43210»
whatsapp:«+4915112345678» delivered
sms to «+1 (415) 555-2671» failed: 30007
phone=«4155552671»
"phone_number": "«020 7946 0958»"
Tel. «030 901820»
Telefon: «0171 5550123»
téléphone «01 99 00 12 34»
contact number «1-800-555-0199»
"mobile":"«+61 491 570 156»"
customer phone «415.555.2671» updated
rang «+49 (0)30 901820» an
call me at «(212)555-0187»
"""

_SETTINGS = r"""
config: {'db': {'user': 'app', 'password': '«clementine1»', 'pool': 5}, 'debug': False}
Settings(db_url='postgresql://«app:p34r»@db/shop', secret_key='«~a50~»', debug=True)
SECRET_KEY = '«django-insecure-~a40~»'
Config(api_key="«~a32~»", timeout=30)
spring.datasource.password=«qu1nce»
database.password: «f1g-tree»
  password: "«gr4pe vine»"
[smtp]␤user = app␤password = «date.palm»
export STRIPE_SECRET=«~a30~»
ENCRYPTION_KEY=«~b43~=»
JWT_SIGNING_KEY=«~a64~»
FERNET_KEY: «~u43~=»
RAILS_MASTER_KEY=«~h32~»
APP_SECRET="«~h32~»"
NEXTAUTH_SECRET=«~b44~»
session.secret=«keyboard cat»
client-secret: «~a36~»
clientSecret='«~a36~»'
oauth2.client.registration.google.client-secret=«GOCSPX-~u28~»
smtp_pass = '«m4ngo»'
MAIL_PASSWORD="«m4ng0 t4ng0»"
ftp_pwd: «papaya8»
root_password => «melon#7»
:password=>"«melon_8»"
password := "«go-melon9»"
Password=«[brackets]9»
db.pass=«lych33»
wifi psk="«home sweet 7»"
snmp community string «s3cretcomm»
env: PATH=/usr/bin:/bin HOME=/root API_TOKEN=«~a40~» LANG=C
os.environ: {'HOME': '/root', 'GITHUB_TOKEN': '«~a40~»', 'USER': 'ci'}
environ({'HOME': '/root', 'AWS_SECRET_ACCESS_KEY': '«~b40~»'})
struct: &Config{User:"app", Password:"«t0psecret»", Port:5432}
Config { user: "app", password: "«rusty-n4il»", port: 5432 }
Credentials(username=app, password=«k1wi-bird»)
User{id=4, email=«juno@example.com», passwordHash=«$argon2id$v=19$m=65536,t=3,p=4$~b22~$~b43~»}
HttpClientOptions[token=«~a32~», retries=3]
[Authorization=Bearer «~a40~», Accept=*/*]
kwargs={'url': 'https://x.example.com', 'auth': ('bob', '«b0bpw»'), 'timeout': 5}
auth=HTTPBasicAuth('bob', '«b0bpw99»')
requests.get(url, auth=("svc", "«~a16~»"))
boto3.client("s3", aws_access_key_id="«AKIA~U16~»", aws_secret_access_key="«~b40~»")
openai.api_key = "«~a40~»"
Client(token='«~a24~»')
hmac key='«~h64~»'
private key: «~pem~»
key loaded «~pem~»␤done
ssh key "«-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r~b64~\n~b64~\n-----END OPENSSH PRIVATE KEY-----»\n"
"tls.key": "«-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE~b50~\n-----END EC PRIVATE KEY-----»"
pgp «-----BEGIN PGP PRIVATE KEY BLOCK-----␤␤lQOYBF~b60~␤=~b4~␤-----END PGP PRIVATE KEY BLOCK-----»
"""

_TRACES = r"""
Traceback (most recent call last):␤  File "/app/db.py", line 9, in connect␤    raise OperationalError(dsn)␤OperationalError: postgresql://«app:~a12~»@db:5432/shop
Traceback (most recent call last):␤  File "/app/pay.py", line 40, in charge␤    stripe.Charge.create(card="«4242424242424242»")␤stripe.error.CardError: declined
requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://api.example.com/v1/x?api_key=«~a32~»&n=1
urllib3.exceptions.MaxRetryError: HTTPSConnectionPool(host='x', port=443): Max retries exceeded with url: /v1?token=«~a32~» (Caused by ...)
ValidationError: 1 validation error for User␤email␤  value is not a valid email [type=value_error, input_value='kurt@@example.com', input_type=str]
pydantic: password␤  String should have at least 8 characters [type=string_too_short, input_value='«abc12»', input_type=str]
KeyError: '«leo@example.com»'
ValueError: invalid literal for int() with base 10: '«mona@example.com»'
IntegrityError: UNIQUE constraint failed: users.email, params: ('«nils@example.com»', 'x')
Exception: login of «otto@example.de» failed, password=«Ottos-1»
java.sql.SQLException: Access denied for user 'app'@'10.0.0.4' (using password: YES) jdbc:mysql://db/shop?user=app&password=«~a10~»
panic: dial tcp: postgres://«app:~a10~»@10.0.0.1:5432/x␤goroutine 1 [running]:
thread 'main' panicked at src/main.rs:4:5: bad token "«~a40~»"
Error: Request failed with status code 401␤  headers: { Authorization: 'Bearer «~a40~»' }
  config: { auth: { username: 'bob', password: '«node-p4ss»' } }
UnhandledPromiseRejection: fetch https://«user:pa55»@example.com/feed failed
SMTPAuthenticationError: (535, b'5.7.8 Username and Password not accepted for «paul@example.com»')
paramiko: auth failed for bob with password '«p4ramiko»'
http.request.header.authorization=["Basic «~b28~»"]
http.url=https://api.example.com/users?email=«rosa@example.com»&sort=1
url.query=session_key=«~a32~»&x=2
db.statement=SELECT * FROM t WHERE api_token='«~h40~»'
db.query.text: UPDATE account SET iban = '«DE89370400440532013000»' WHERE id = ?
messaging.message.body={"phone":"«+49 30 901820»","name":"Ann"}
exception.message: cannot deliver to «sina@example.com»: 550
rpc.request: {"auth":{"token":"«~a24~»"}}
enduser.email=«theo@example.com»
process.command_line=python app.py --db-password «z1nnia» --port 80
process.command_args=["app","--api-key","«~a24~»","--verbose"]
baggage: user.email=«uta%40example.com»,tenant=4
cmd="mysql" args=["-u","root","--password=«d4isy»"]
"""

_PROMPTS = r"""
My wifi password is «fuzzy-bunny-9», can you write it nicely?
the password for bob is «hunter2»
The password for the staging database is «Gr33n.Tea», please rotate it.
password of the admin account: «adm1n!2026»
Please log in as admin with password «letmein1» and check
Use username admin and password «Adm1nPa55» for the demo
username: demo / password: «d3moPass»
login: demo, pw: «d3moPass2»
user/pass: demo/«dem0pass3»
here are my credentials: demo:«d3mo-pass4»
My API key is «~a32~» but I get 401.
I set OPENAI_API_KEY to «sk-~a48~» as you said
api key = «~a32~»
The token is «~a40~».
Our client secret: «~a40~» (prod)
bearer token: «~a48~»
Mein Passwort lautet «Sonne-1984», was nun?
Passwort: «Blume77»
Kennwort: «Wolke88»
mot de passe : «soleil99»
contraseña: «Verano2026»
Das Passwort ist «Regen2025».
My SSN is «219-09-9999», can you fill in the form?
my social security number is «457 55 5462»
Card: «5105 1051 0510 5100», expiry 04/27, CVV «123»
Charge my Visa «4012888888881881» please
I live at 4 Elm St, call «(650) 555-0143» or mail «val@example.com»
You can reach Dr. Wu on «650-555-0199».
My number is «+43 660 1234567»
PIN is «4711» for the door
the pin code is «0815»
Her passport and IBAN «IT60X0542811101000000123456»
Write to walter [at] example or «walter@example.com»
{"role":"user","content":"my password is «tulip-44»"}
[{"role":"system","content":"Use key «sk-~a48~»"},{"role":"user","content":"hi"}]
{"name":"send_mail","arguments":"{\"to\":\"«xenia@example.com»\",\"subject\":\"hi\"}"}
{"name":"query","arguments":"{\"dsn\":\"postgres://«ro:~a12~»@db/x\"}"}
{"tool_calls":[{"function":{"arguments":"{\"password\": \"«orchid_5»\"}"}}]}
tool result: {'token': '«~a32~», 'expires': 3600}
Here is my .env:␤DEBUG=1␤DATABASE_URL=postgres://«app:~a10~»@db/app␤SECRET_KEY=«~a40~»
```yaml␤db:␤  user: app␤  password: «p30ny»␤```
Summarise this mail: From «yara@example.com»: hello
Translate: "Contact us at «info@example.com»"
"""

_CLI = r"""
Enter password: «hidden-9»
Password for 'https://bob@github.com': «ghp_~a36~»
Generated password: «~a16~»
New password is «~a14~»
Temporary password «~a12~» mailed
initial admin password: «~a18~»
one-time code «381920» for login
2FA code: «550123»
recovery code «~l5~-~l5~»
seed phrase "«legal winner thank year wave sausage worth useful legal winner thank yellow»"
license key: «~U5~-~U5~-~U5~-~U5~»
Created API token «~a40~», it is shown once
secret access key: «~b40~»
access key: «AKIA~U16~»
Your secret is «~a32~»
shared secret «~h32~»
root token: «hvs.~a24~»
Unseal Key 1: «~b43~=»
join with: kubeadm join 10.0.0.1:6443 --token «~l6~.~l16~» --discovery-token-ca-cert-hash sha256:~h64~
docker swarm join --token «SWMTKN-1-~l50~-~l25~» 10.0.0.1:2377
jupyter: http://localhost:8888/lab?token=«~h48~»
"""

_DRAWN_BENIGN = r"""
2026-11-21T16:33:41.~d6~Z INFO request ~uuid~ done in 0.~d3~s
trace=~h32~ span=~h16~ parent=~h16~ sampled=1
traceparent: 00-~h32~-~h16~-01
commit ~h40~ (HEAD -> main) Merge branch 'x'
image shop@sha256:~h64~ up to date
order #~d8~ created, cart ~d6~
tracking 1Z~U16~ out for delivery
DHL ~d20~ handed over
pod/shop-~l9~-~l5~ evicted
build ~d7~ of job 41 passed in 12m
md5 ~h32~ ok
{"id":"~uuid~","ts":1760~d9~,"seq":~d7~}
ObjectId("~h24~") not found
s3 etag "~h32~" version ~a32~
request id ~U13~ host id ~b76~=
msg_~a24~ processed
chatcmpl-~a29~ finished
run_~a24~ in thread_~a24~
cus_~a14~ has sub_~a24~
pi_~a24~ succeeded
bytes ~d12~ free of ~d13~
offset ~d10~ partition 4
latency_ns=~d9~ start_ns=17600~d14~
invoice 2026-~d6~ for customer ~d7~
AC~h32~ is the account
i-0~h16~ running, vol-0~h16~ attached, vpc-~h8~
arn:aws:iam::~d12~:role/deploy-~a8~
projects/shop-~d6~/locations/eu/keyRings/r/cryptoKeys/k
/tmp/pytest-of-ci/pytest-~d3~/test_x0/~uuid~.log
Message-ID: <~d14~.~h12~-mail>
temperature ~d2~.~d4~, pressure 10~d2~.~d2~
0x~h12~ -> 0x~h12~
blob ~h7~..~h7~ 100644
"""

_BENIGN = r"""
password changed for user 42
Password authentication is disabled
password: required
password must contain a digit
password too short: 5 < 8
Password reset email sent
passwords do not match
the password for this account has expired
wrong password for user bob (attempt 3)
using password: YES
no password given
password hash algorithm: argon2id
password strength: weak
password policy updated by admin
password field is hidden
forgot password? click here
incorrect username or password
password is not set
passwordless login enabled
sshd: Accepted publickey for deploy from 10.0.0.3 port 51234 ssh2
sshd: Failed password for root from 192.0.2.4 port 4022 ssh2
sshd: Failed password for invalid user admin from 192.0.2.4 port 4022 ssh2
pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh
sudo: 3 incorrect password attempts
token count is 1820
token limit reached: 4096
tokens: 512/4096
Unexpected token '<' at position 0
SyntaxError: Unexpected token } in JSON at position 120
invalid token at line 4
token refreshed for client shop
token is valid for 3600 seconds
token expired 5 minutes ago
token type is bearer
Token bucket refilled: 100
tokenizer loaded in 0.3s: cl100k_base
stop token </s> reached
tokenization: 12 tokens
prompt_tokens=812 completion_tokens=64 cached_tokens=512 reasoning_tokens=0
gen_ai.usage.output_tokens=320
max_output_tokens: 2048
time per token 21 ms
secret rotation finished
Secret "shop-db" created
secret/shop configured
kubectl get secret shop-db -n prod
secretName: shop-db
secretKeyRef: {name: shop-db, key: password}
valueFrom.secretKeyRef.name=db
mounting secret volume shop-tls
no secrets detected
secrets: inherit
uses: actions/checkout@v4
uses: docker/build-push-action@v6 with: push: true
api key is missing
API key not valid. Please pass a valid API key.
api key rotated
x-api-key header is required
api_key_id=12 api_version=2024-06-01
missing required header: Authorization
Authorization header is malformed
authorization: allow
authorization succeeded for user 4
auth: ok
auth method: password
auth_type=oauth2 auth_url=https://login.example.com
authenticated as service-account shop
author=alice co-author=bob authority=example.com
basic auth is disabled
basic block 12: falls through
Basic usage: run the tests
bearer of bad news
bearer token missing
cookie expired
cookie jar cleared
cookies: disabled
cookie_policy=strict cookie_count=4
session started
session_id=42 session_count=7
session timeout 1800
key: 42
key not found: orders
keys: 12
key=orders:2026-11-21:42
cache key orders:page:3 missed
primary key (id)
foreign key constraint fails
sort key created_at
key error
keyboard layout de
keyspace hits 120
keyfile /etc/ssl/private/server.key loaded
private key file is /etc/ssl/server.pem
ssh key fingerprint SHA256 matches
public key accepted
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI ci@runner is a public key
encryption key version 3
signing key id 2026-11
kms key alias/shop
pin 13 set high
pinned version 1.2.3
pinning numpy==2.1.0
spin lock held
pins: 4
code: 404
code=ENOENT errno=-2
exit code: 137
error code 1045 (28000)
status code 503
zip code 53111
country_code=49
language code: de-DE
verification code sent
otp sent to user 4
otp expired
Erlang/OTP 26 [erts-14.2]
two-factor is on
credential helper is store
credentials loaded from /root/.aws/credentials
credentials refreshed
Found credentials in shared credentials file: ~/.aws/credentials
signature verified
signature: def run(self, n: int) -> str
sig=SIGTERM pid=1
sign=-1
hash: 9f2c
pass
pass 2 of 3
passed=120 failed=0
pass rate: 0.98
passenger list: 12
compass heading: 270
bypass=true
passthrough: on
ssn column dropped
jwt verification is on
jwt expired
csrf protection enabled
CSRF token missing
license: Apache-2.0
license key accepted
pwd: /home/bob
pwd=/srv/app
cd /srv && pwd
email=None
email sent
email: true
email address is invalid
@ 10:30
@app.get("/items/{item_id}")
@pytest.mark.parametrize
@media (min-width: 600px)
@types/react@18.3.1
vue@3.4.21 and @vitejs/plugin-vue@5.0.4
left-pad@1.3.0
image@2x.png
user@host:~$ ls
bob@db-1 $ uptime
root@shop-7d9c6b5f4d:/app#
ssh deploy@10.0.0.4
scp a.tar deploy@build-1:/srv
git@github.com:acme/shop.git
git clone git@gitlab.com:acme/shop.git
systemd: user@1000.service: Succeeded
postgres@14-main.service active
a@b
Foo@1a2b3c4d
java.lang.Object@6d06d69c
com.acme.Shop$$Lambda@0x0000000800c12345
node:internal/process/task_queues:95
rev@HEAD~3
stash@{0}
refs/heads/main@{upstream}
docker.io/library/redis:7@sha256
https://example.com/@alice/posts
https://medium.example.com/@bob
https://user@example.com/repo
https://example.com:8443/a?b=c
http://10.0.0.1:9090/metrics
redis://cache:6379/0
postgresql://db:5432/shop
postgresql://app@db/shop
amqp://mq:5672
mongodb://mongo-0:27017,mongo-1:27017/shop
jdbc:postgresql://db:5432/shop?ssl=true
s3://bucket/prefix/2026/11/21/
gs://bucket/a/b.parquet
file:///etc/hosts
sftp://files.example.com/in
kafka://broker-1:9092
ws://localhost:3000/socket.io/?EIO=4&transport=websocket&sid=abc
grpc://collector:4317
GET /api/orders?page=3&size=50&sort=-created 200
GET /api/items?code=200&key=name 200
GET /search?q=password+reset 200
GET /static/app.3f2a1b9c.js 304
GET /favicon.ico 404
GET /token/refresh 405
POST /oauth/token 200
POST /auth/login 401
PUT /secrets/rotate 202
DELETE /api-keys/12 204
10.0.0.4 - - [21/Nov/2026:16:33:41 +0000] "GET / HTTP/1.1" 200 612 "-" "Mozilla/5.0 (X11; Linux x86_64)"
Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36
python-requests/2.32.3
OpenSSL 3.0.13 30 Jan 2024
Linux 6.8.0-1021-aws #23-Ubuntu SMP
Python 3.11.7 (main, Dec  8 2023, 18:56:58) [GCC 12.2.0]
pip 24.0 from /usr/lib/python3/dist-packages/pip (python 3.11)
numpy-2.1.3-cp311-cp311-manylinux_2_17_x86_64.whl
node v20.11.1, npm 10.2.4
v1.2.3-alpha.1+exp.sha.5114f85
2026.11.21-4
1.0.0.0
4.15.0-213-generic
2026-11-21 16:33:41,123
21.11.2026 16:33
11/21/2026 04:33 PM
Sat, 21 Nov 2026 16:33:41 GMT
20261121T163341Z
20261121163341
1763742821
1763742821123
1763742821.123456
1763742821123456789
P3Y6M4DT12H30M5S
00:12:34.567
+02:00
UTC+2
GMT-0500
duration: 123.456 ms
took 1.234567890123 s
heap 123456789 / 1073741824
Content-Length: 1048576
range: bytes=0-1023/146515
rows=1234567 width=244
cost=0.00..431.00 rows=20000 width=8
load average: 0.52, 0.58, 0.59
12 345 678 rows
1,234,567.89 EUR
EUR 1.234.567,89
$1,299.00
-12.5 %
5 of 10
3x4x5
1920x1080@60
52.5200, 13.4050
lat=50.7374 lon=7.0982
POINT(7.0982 50.7374)
rgb(12, 34, 56) #ff8800
ISBN 978-0-13-468599-1
ISBN 0-306-40615-2
EAN 4006381333931
UPC 036000291452
ISSN 2049-3630
doi:10.1000/182
VIN 1HGCM82633A004352
IMEI 490154203237518
MAC 00:1a:2b:3c:4d:5e
mac=001a.2b3c.4d5e
ICAO 3C6444, flight LH400
part no. 555-1234-A
SKU 123-456-7890-X
SKU ABC-12345-XL
serial 1234-5678-9012
ticket 2026-1121-0042
case 2026/11/21-7
room 415-555
ext 4155
score 123-45
12-34-5678
123-456
build 415.555.12
section 3.2.1.4
§ 4.1.2
matrix [[1, 2, 3], [4, 5, 6]]
[0.12345678901234, 0.98765432109876, -0.5]
tensor([4111., 1111., 1111., 1111.])
1111 2222 3333 4444 5555
0 1 1 2 3 5 8 13 21 34 55 89 144 233 377 610
1000000000000000
9999999999999999
0000000000000000
1234567890123456
1234567890
0123456789
123456789
DE00 1234
GB29 is a route
FR76 sensor
port 8080, 8443, 9090
ports 4317-4318
pid=12345 tid=140735123456789 uid=1000
errno 104 ECONNRESET
SIGTERM received, 12 requests in flight
OOMKilled: memory 512Mi
http.status_code=200 net.peer.port=443
k8s.pod.uid is set
service.name=shop service.version=1.2.3 deployment.environment=prod
db.system=postgresql db.name=shop db.operation=SELECT
SELECT id, name FROM users WHERE password IS NOT NULL
SELECT count(*) FROM tokens WHERE expires_at < now()
ALTER TABLE users ADD COLUMN password_hash text
CREATE INDEX idx_token ON sessions (token)
UPDATE users SET password = ? WHERE id = ?
UPDATE users SET password = %(password)s, email = %(email)s WHERE id = %(id)s
INSERT INTO users (email, password) VALUES ($1, $2)
VALUES (?, ?, ?, ?)
def check_password(self, raw_password: str) -> bool:
password = getpass.getpass("Password: ")
password = os.getenv("DB_PASSWORD")
password=config.password, token=config.token
token = request.headers.get("Authorization")
token := ctx.Value("token").(string)
const token = await getToken();
let password = prompt("Password");
if password == stored_password:
self.api_key = api_key
api_key: Optional[str] = None,
secret: SecretStr = Field(...)
password: ${DB_PASSWORD}
password: {{ db_password }}
password: !vault |
password: <redacted>
password=[FILTERED]
password=***
password=xxxxxxxx
Authorization: [REDACTED]
Authorization: Bearer ***
Authorization: Bearer <token>
Authorization: Bearer $TOKEN
Authorization: Bearer {token}
api_key=YOUR_API_KEY
OPENAI_API_KEY=sk-...
token=<your token here>
-H "X-Api-Key: $API_KEY"
curl -u "$USER:$PASS" https://example.com
curl -u user https://example.com
export TOKEN=$(cat /run/secrets/token)
--password-stdin
--password-file /run/secrets/pw
docker login -u ci --password-stdin registry.example.com
mysql -u root -p shop
ssh -p 2222 deploy@10.0.0.1
mkdir -p /srv/app/releases
cp -p a.txt b.txt
ps -p 4711 -o pid,cmd
scp -P 2222 a b
python -u app.py
tar -u archive.tar
sort -u names.txt
date -u
useradd -u 1001 bob
-----BEGIN CERTIFICATE REQUEST-----
-----BEGIN PGP MESSAGE-----
-----BEGIN SSH2 PUBLIC KEY-----
ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 deploy
SHA256:uNiVztksCsDhcc0u9e8BrDWrOGhr2Zq6iZq1Zq3nq1c
sha512-abcdefABCDEF0123456789abcdefABCDEF0123456789== integrity
data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk
eyJhbGciOi is cut off
eyJub3QiOiJhIGhlYWRlciJ9 is a cursor
next_cursor=eyJpZCI6NDIsInRzIjoxNzYwMDAwMDAwfQ==
pageToken=CAUQAA next page
page_token: CAUQAA
nextPageToken "CAoQAA"
continuation_token=abc
cancellation token was cancelled
CancellationToken.None
anti-forgery token validation passed
sync token 4 of 5
device token registered
token_endpoint=https://login.example.com/token
password_policy.min_length=12
the secret of success is hard work
Secret Santa starts on Monday
The key is under the mat
the key to performance is caching
The code is clean and the tests pass
The pin is loose, said the mechanic
my password manager crashed
How do I reset my password in Django?
What is a bearer token and when does it expire?
Please explain what an API key is.
Write a function that validates an e-mail address.
Write a regex for US phone numbers.
The answer to 17 * 23 is 391.
Order 4111 has 1111 items, 1111 shipped and 1111 open
Call me Ishmael. Some years ago
He was born on 12-03-1984 in Bonn.
The meeting is at 555 Main Street, room 123, floor 4
Chapter 3-12-2024 draft
There are 1234567 sheep in 89 fields.
The password for the demo is shown on the screen
the token for this request was missing
password for user bob is incorrect
Passwort ist erforderlich
Das Passwort ist falsch
Kennwort geändert
contact: support team
phone: unknown
phone number is missing
tel. on request
mobile: true
mobile=false
fax: none
call 12 of 20
callback registered
sk-learn pipeline fitted
risk-assessment-for-the-second-quarter-2026 uploaded
task-12345678901234567890 queued
desk-booking-service-v2-canary-eu-west-1 deployed
disk-usage-monitor-7f9c6d5b4-abcde ready
hf_transfer enabled
npm_config_registry=https://registry.npmjs.org/
npm_lifecycle_event=build
github_actions_runner_version=2.320.0
sk_learn_version=1.5.2
secret_store_provider=vault
key-value-store-with-many-words-v2 started
pat answers
r8_g8_b8_a8_unorm format
SG.a is a group
glc_surface created
AKIA is the prefix of access keys
ATATT is short
dapi is not a word
AIza is how Google keys begin
xoxb is a bot
Base64 of the picture: /9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgICAgMCAgIDAwMDBAYEBAQEBAgGBgUGCQgKCgkICQkKDA8MCgsOCwkJDRENDg8Q
module path github.com/acme/shop/internal/tokens/tokens.go:42
at com.acme.auth.TokenService.refresh(TokenService.java:88)
at Object.<anonymous> (/app/src/auth/password.js:12:7)
  File "/app/auth/password.py", line 88, in verify_password
  File "/usr/lib/python3.11/secrets.py", line 12, in token_hex
WARNING: password.py:12: deprecated
auth.py::test_token_is_refreshed PASSED
test_password_is_hidden PASSED [ 42%]
[tool.ruff.lint] ignore = ["S105", "S106"]
feature flag password_login=on
flags: {"secret_menu": true, "token_gate": false}
{"password_required": true, "has_password": false, "token_count": 12}
{"auth": {"enabled": true, "type": "basic"}}
{"auth": true}
{"key": "name", "value": "Bonn"}
{"code": "E42", "key": "orders"}
{"pin": true, "pinned": [1, 2, 3]}
{"pass": true, "score": 0.9}
{"tokens": [12, 45, 99], "token_ids": [1, 2, 3]}
{"token": 17}
{"cookies": []}
{"credentials": null}
{"secret": false}
{"phones": []}
{"email": null, "phone": ""}
"""

# Written when the rules had been mended by the lines above, to see what they make of others.

_LATER = r"""
Started POST "/sessions" for 127.0.0.1␤  Parameters: {"authenticity_token"=>"«~b86~==»", "user"=>{"email"=>"«amy@example.com»", "password"=>"«Pl4stic-cup»"}}
[2026-11-21 16:33:41] local.ERROR: SQLSTATE[HY000] [1045] Access denied {"password":"«laravel-pw1»","userId":4}
APP_KEY=base64:«~b43~=»
{"level":30,"time":1763742821123,"req":{"headers":{"authorization":"Bearer «~jwt~»","host":"shop"}},"msg":"in"}
{"level":"info","ts":1763742821.1,"caller":"auth/token.go:42","msg":"issued","token":"«~a40~»"}
time=2026-11-21T16:33:41Z level=DEBUG msg=exchange client_id=web client_secret=«~a32~» code=«~a24~» grant=authorization_code
E1121 16:33:41.123 12 client.go:88] refresh_token="«~u80~»"
2026-11-21 16:33:41.123 DEBUG 12 --- [nio-8080-exec-1] o.s.w.c.RestTemplate : headers=[Authorization:"Bearer «~u60~»", Accept:"application/json"]
Hibernate: insert into users (email, pwd) values ('«ben@example.org»', 'x')
c.z.h.HikariConfig : jdbcUrl.....jdbc:postgresql://db/shop?user=app&password=«h1kari»
spring.datasource.hikari.password: "«h1kari-2»"
info: Microsoft.AspNetCore.Hosting[1] Request starting GET https://shop/api?subscription-key=«~h32~»
ConnectionStrings__Default=Host=db;Username=app;Password=«N3tPass»
ConnectionStrings:Redis = cache:6380,password=«~b43~=»,ssl=True
PS C:\> net user carl «Wint3r!pw» /add
metadata: map[authorization:[Bearer «~u40~»] content-type:[application/grpc]]
grpc-metadata x-goog-api-key: «AIza~u35~»
<saml:Attribute Name="mail"><saml:AttributeValue>«dan@example.edu»</saml:AttributeValue></saml:Attribute>
<add key="ApiSecret" value="«~a32~»" />
<property name="javax.persistence.jdbc.password" value="«jp4pass»"/>
<password>«m4ven»</password>
"env":[{"name":"DB_PASSWORD","value":"«k8s-pass1»"},{"name":"LOG_LEVEL","value":"debug"}]
      - name: API_TOKEN␤        value: «~a32~»
ok: [web1] => {"ansible_facts": {"vault_db_password": "«v4ulted»"}}
  + password = "«t3rraform»"
  ~ secret_string = "«~a24~»" -> (known after apply)
##[debug]NPM_TOKEN: «npm_~a36~»
::set-env name=DEPLOY_TOKEN::«~a40~»
DOCKER_AUTH_CONFIG={"auths":{"r.example.com":{"username":"ci","password":"«r3gistry»"}}}
machine api.example.com login bob password «n3trc-pw»
user_pref("network.proxy.password", "«pr0xy-pw»");
git config http.extraheader "AUTHORIZATION: basic «~b40~»"
remote: https://oauth2:«glpat-~u20~»@gitlab.example.com/a/b.git
fatal: Authentication failed for 'https://eve:«ghp_~a36~»@github.com/acme/x.git/'
ssh-add: «-----BEGIN RSA PRIVATE KEY-----␤Proc-Type: 4,ENCRYPTED␤DEK-Info: AES-128-CBC,~h32~␤␤~b64~␤~b40~==␤-----END RSA PRIVATE KEY-----»
MQTT CONNECT client=dev1 user=sensor pass=«iot-pass7»
{"wifi":{"ssid":"home","psk":"«guest net 4»"}}
radius: User-Password = "«r4dius»"
ppp: sent [PAP AuthReq id=0x1 user="dsl" password="«dsl-pw-7»"]
FTP: USER anna␤FTP: PASS «ftp-Pass7»
IMAP: a1 LOGIN «frank@example.com» «im4p-pw»
a1 LOGIN "gina" "«im4p pw 2»"
SASL PLAIN authzid= user=hal password=«s4sl»
{"event":"payment_intent","billing":{"name":"Ida","email":"«ida@example.com»","phone":"«+14155550132»"},"card":{"last4":"4242"}}
{"PAN":"«~card~»","exp":"0428","cvv2":"«481»"}
:59:/«DE75512108001245126199»␤JAN KOWALSKI
"accountNumber":"«GB33BUKB20201555555555»"
IBAN-Nr.: «CH5604835012345678009»
patient ssn «536-90-4399», dob 1980-01-02
{"social_security_number":"«536904399»"}
EMP|0042|«kara@example.com»|«(415) 555-0199»|active
Kontakt: Lea Muster, Tel. «+49 (0) 89 1234567», «lea.muster@example.de»
Handy: «+49-151-23456789»
ring me on «+1 650 555 0100» or «650 555 0100»
call from «+81 3-1234-5678» to «+55 11 91234-5678»
SMS "Your code is 4" to «+61412345678»
Your verification code is «481920»
Dein Code: 1; Passwort: «Rosen-44»
G-«481920» is your code
Hi team, the prod db password is «Tul1p&Rose» - please don't share
can you ssh in? user: ops pass: «0ps-pass»
login with admin/«adm1n-pw» on the staging box
my api key: «~a32~», model gpt-4
I pasted the token «ghp_~a36~» by accident, what now?
export ANTHROPIC_API_KEY="«sk-ant-api03-~u93~AA»" && claude
set OPENAI_API_KEY=«sk-proj-~u60~1»
client = anthropic.Anthropic(api_key="«sk-ant-api03-~u93~AA»")
os.environ["HF_TOKEN"] = "«hf_~a34~»"
headers = {"Authorization": f"Bearer «~a40~»"}
axios.get(url, { headers: { 'X-API-KEY': '«~a32~»' } })
const password = "«js-pass-1»";
$password = '«php-pass-1»';
private static final String PASSWORD = "«java-pass-1»";
var connStr = "Server=db;Database=x;User Id=sa;Password=«cs-Pass1»;";
#define WIFI_PASSWORD "«esp-pass-1»"
ENV POSTGRES_PASSWORD=«dockerf1le»
ENV REDIS_PASSWORD «dockerf1le2»
ARG NPM_TOKEN=«npm_~a36~»
POSTGRES_PASSWORD: «c0mpose»
 - RABBITMQ_DEFAULT_PASS=«r4bbit»
 - "MINIO_ROOT_PASSWORD=«m1nio-pw»"
requirepass «r3dis-conf»
masterauth «r3dis-conf2»
  "consumerKey": "«~a25~»", "consumerSecret": "«~a50~»"
oauth_token="«~d18~-~a40~»", oauth_signature="«~a27~%3D»"
wp-config: define( 'DB_PASSWORD', '«w0rdpress»' );
define('AUTH_KEY', '«~b64~»');
identity: {"access":"«~jwt~»","refresh":"«~jwt~»"}
sessionToken=«r:~h32~»
Set-Cookie: __Host-session=«~a43~; Secure; HttpOnly»
cookie header was «sid=~a32~; uid=4» for user 4
"cookies":{"sid":"«~a32~»"}
GET /api?apikey=«~h32~»&q=bonn
GET /v2/data?appid=«~h32~»&lat=50
https://api.example.com/hook/«~uuid~»?secret=«~a20~»
wss://gw.example.com/?v=10&token=«~a40~»
https://example.com/#access_token=«~a60~»&token_type=bearer
/api/v1/users/«mia.k@example.com»/orders
cache miss user:«noel@example.org»:cart
kafka key=«olga@example.com» partition=3
audit: actor=«pete@example.com» action=delete
uid=1000(«quinn@corp.example.com») gid=1000
user "CORP\rob" mailbox «rob@corp.example.com» moved
"to":["Sam <«sam@example.com»>","«tess@example.com»"]
Failed to deliver to «ursula+news@example.org»;
"""

_BENIGN_LATER = r"""
Started GET "/orders/4711" for 127.0.0.1 at 2026-11-21 16:33:41 +0000
  Parameters: {"id"=>"4711", "page"=>"2"}
Completed 200 OK in 41ms (Views: 30.2ms | ActiveRecord: 4.1ms)
Password can't be blank
Password is too short (minimum is 8 characters)
password_confirmation does not match
Validation failed: Token has expired, Code is invalid
Redis auth required but no password is set
requirepass is not set
WARN: password supplied on the command line
Generating new token for user 4711
Token 4711 consumed 3 times
Token budget: 128k of 200k
API token "deploy" created by bob
key "orders.created" bound to queue
Key: (id)=(4711) already exists
KeyError: 4711
Access key rotated 90 days ago
secret "db-credentials" not found
Secret version 7 enabled
secretsmanager: version stage AWSCURRENT
auth middleware took 3 ms
auth.go:42: authorized
auth service is up at auth-7d9c6b5f4d-x2x9k
authorization code flow started
Authorization policy "orders-read" matched
credential id 4711 selected
certificate serial 04:A3:7F:19
fingerprint SHA1 33:A6:4D:F5
csrf cookie set
cookie banner shown
cookie size 412 bytes
session cookie SameSite=Lax
bearer tokens are accepted
basic plan, 12 seats
Basic block frequency info
pin D13 is output
pin 42: LOW
PIN entry failed
pin code is wrong
codes: 200=410, 404=3, 500=1
code 0x80070005
code=4711 message=refused
error code: E4711
code review by carl
promo code SUMMER2026 applied
postal code 10115
status code is 503
exit code is 137
country code: +49
otp_length=6 otp_ttl=300
Verification code has been sent
Your code is being reviewed
Your verification code expires in 10 minutes
phone: iPhone15,2
phone verified
mobile=1 tablet=0
tel: not given
fax sent
cell (3, 4) is empty
cellphone usage is up
Handy tips for Python
smartphone 2340x1080
email: verified
emails sent: 412
mail queue 4F2A1B3C
user agent: Dalvik/2.1.0 (Linux; U; Android 14; SM-G991B Build/UP1A.231005.007)
build fingerprint google/oriole/oriole:14/UP1A.231005.007/10754064:user/release-keys
x-request-id: ~uuid~
x-amzn-trace-id: Root=1-~h8~-~h24~
x-b3-traceid: ~h32~
cf-ray: ~h16~-FRA
etag: "~h32~"
if-none-match: W/"~h24~"
content-md5: ~b22~==
idempotency-key: ~uuid~
correlationId=~uuid~
requestId: ~a32~
deployment ~h40~ promoted
nonce=~h16~ attempt=2
checksum=~h64~
digest: sha256:~h64~
job_~a20~ queued
evt_~a24~ received
ch_~a24~ refunded
req_~a14~
price_~a24~ active
file-~a24~ uploaded
asst_~a24~ ready
resp_~h48~ done
toolu_~a22~ called
call_~a24~ returned
urn:uuid:~uuid~
did:key:z6Mk is a method
tx 0x~h64~ mined
block ~d8~ height
ark:/12345/~l10~
orcid 0000-0002-1825-0097
isbn:9783161484100
gtin ~d14~
awb 020-12345675
LOC 1234-5678
PO-2026-0042-17
2026-W47-6
1-2-3-4
~d4~-~d4~
~d3~-~d4~
10.0.0.0/8 via 10.0.0.1
255.255.255.0
1.2.840.113549.1.1.11
2.16.840.1.113883
99.9999999
-122.419415, 37.774929
0.1.2-dev.20261121163341
rev 1234567890ab
MemoryError at 0x7f3a1c2b4d5e
<Order 4711 at 0x7f3a1c2b4d5e>
<Task pending name='Task-12' coro=<run() running at app.py:41>>
org.apache.kafka.common.security.authenticator.SaslClientAuthenticator
com.acme.security.PasswordEncoder$Builder@4f3a1c2b
io.netty.channel.AbstractChannel$AnnotatedConnectException
TokenRefreshError: HTTP 401
InvalidPasswordException: null
module.exports = { secret: process.env.SECRET }
password: process.env.DB_PASSWORD,
password=os.environ.get('PW')
password: "{{ vault_db_password }}"
token: ${{ secrets.GITHUB_TOKEN }}
secret_key = Rails.application.credentials.secret_key_base
Authorization: Bearer ${ACCESS_TOKEN}
"password": "********"
"token": "[Filtered]"
Parameters: {"password"=>"[FILTERED]"}
password = (sensitive value)
(known after apply)
token = <sensitive>
How can I store a password safely?
Explain JWT: header, payload and signature.
What does "token" mean in a language model?
Translate "password" into German: Passwort.
List five codes of conduct.
Give me a recipe for 4 people, 500 g flour, 20 g yeast.
Phone the office at nine.
The phone rang 12 times.
The secret to 3 good meals a day is planning.
A key 2026 trend is observability.
Token economics in 2026: a review
The password was changed in 2024.
The password for 2FA apps is something else
"""

# Written last, and as one would write such a list: what services usually say.

_USUAL = r"""
2026-11-21T10:00:01Z ERROR payment failed for customer «jane.roe@example.com» card «4532015112830366»
2026-11-21 10:00:01,123 [worker-3] WARN  Login failed for user='bob' password='«Tr0ub4dor&3»'
INFO connecting to postgres://«admin:S3cr3tP@ss»@db.internal:5432/prod
DEBUG Sending request with headers {'Authorization': 'Bearer «~jwt~»', 'Content-Type': 'application/json'}
AWS credentials loaded: «AKIA~U16~»
aws_secret_access_key=«~b40~»
Stripe charge created with key «sk_live_~a24~»
Slack notification sent using token «xoxb-~d12~-~d13~-~a24~»
GitHub clone with token «ghp_~a36~»
User SSN: «078-05-1120» verified
Transfer from «GB29NWBK60161331926819» to «DE89370400440532013000»
Call customer at «+1-202-555-0173» regarding order 12345
Customer phone «(202) 555-0173» -> «(202) 555-0143»
curl -H "Authorization: Bearer «~a40~»" https://api.example.com/v1/charges
curl -u admin:«hunter2» https://example.com/api
https://«user:p4ssw0rd»@example.com/path?x=1
{"user": "alice", "email": "«alice@example.com»", "password": "«correct horse battery staple»"}
{"level":"error","msg":"auth failed","api_key":"«~a32~»","status":401}
Set-Cookie: «session=~h32~; Path=/; HttpOnly»
Cookie: «_ga=GA1.2.1; session_id=~h32~»
smtp auth: user=«mailer@example.net» pass=«m41l3r!»
redis://:«s3cr3t»@localhost:6379/0
mongodb+srv://«app:~a16~»@cluster0.mongodb.net/test
export DATABASE_URL=mysql://«root:toor1»@localhost/db
export OPENAI_API_KEY=«sk-~a48~»
ANTHROPIC_API_KEY=«sk-ant-api03-~u93~AA»
Using API key: «AIza~u35~»
token: «~jwt~»
My credit card is «5555 5555 5555 4444», exp 12/27, cvv «123». Can you book the flight?
My email is «john.doe@example.com» and my phone is «555-867-5309»
Hi, I'm John, my social security number is «219-09-9999».
Please use this password: «Summer2024!» to log in
The database password is «Pr0d-DB-2024»
my api key is «~a40~» please debug
system: You are an assistant. Use key «sk-proj-~u60~9» for the tool.
Traceback: requests.exceptions.HTTPError: 401 for url https://api.example.com?api_key=«~h32~»
ConnectionError: amqp://«guest:guest1»@rabbit:5672//
KeyError while parsing {"ssn": "«219-09-9999»", "dob": "1990-01-01"}
url.full=https://example.com/reset?token=«~a32~»
http.request.header.cookie="«sid=~h32~»"
db.statement: INSERT INTO users(email) VALUES('«bob@example.org»')
enduser.id=«bob.smith@example.org»
Jwt=«~jwt~»
key=«-----BEGIN RSA PRIVATE KEY-----␤MIIEpAIBAAKCAQEA~b40~␤~b64~␤-----END RSA PRIVATE KEY-----»
"private_key": "«-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg~b40~\n-----END PRIVATE KEY-----\n»"
Server=myserver;Database=mydb;User Id=sa;Password=«P@ssw0rd!»;
DefaultEndpointsProtocol=https;AccountName=x;AccountKey=«~b86~==»;
https://x.blob.core.windows.net/a?sv=2020&sig=«~a43~%3D»
discord webhook «https://discord.com/api/webhooks/~d18~/~u68~» is gone
npm publish with «npm_~a36~»
PYPI_TOKEN=«pypi-AgEIcHlwaS5vcmcCJ~u120~»
SENDGRID_API_KEY=«SG.~u22~.~u43~»
Twilio auth token «~h32~»
TWILIO_AUTH_TOKEN=«~h32~»
TELEGRAM_BOT_TOKEN=«123456789:AAF~u32~»
DISCORD_TOKEN=«MTA~a21~.Gx~a4~.~u38~»
HF_TOKEN: «hf_~a34~»
gitlab token «glpat-~u20~» expired
x-api-key: «~a40~»
X-Auth-Token «~h32~»
password%3D«hunter2»%26user%3Dbob
{\"password\":\"«hunter2»\",\"u\":1}
{\\\"token\\\":\\\"«~a20~»\\\"}
<password>«hunter2»</password>
--password «hunter2» --user bob
--api-key=«~a20~»
mysql -u root -p«hunter2» -h db
sshpass -p «hunter2» ssh host
passwd: «hunter2»
pwd = «hunter2»
secret="«s3cr3t value»"
client_secret: '«~a32~»'
passphrase «open5esame» used
PIN: «4821»
otp «482913» sent
My PIN is «4821» and my account is «DE89 3704 0044 0532 0130 00»
Authorization: Basic «dXNlcjpwYXNzd29yZA==»
Proxy-Authorization: Basic «dXNlcjpwYXNzd29yZA==»
Authorization: ApiKey «~a40~»
authorization: Bearer «~a20~»
access_token=«ya29.~u60~»&expires_in=3600
refresh token «1//~u60~»
id=1 email=«a.b@example.co.uk» plan=pro
from: "Bob" <«bob@example.com»>
mail to «bob@example.com», «carol@example.com»; done
card_number=«378282246310005»
cc: «6011111111111117»
IBAN FR76 -> «FR7630006000011234567890189»
contact me on «+44 7911 123456»
tel: «020 7946 0018»
"""

_BENIGN_USUAL = r"""
GET /api/v1/orders/123456789 200 12ms
request_id=~uuid~ status=200
commit ~h40~ pushed
sha256=~h64~
version 1.2.3-beta.4
ts=1700000000 dur=12.345
order number 4532015112830367 shipped
tracking 9400110200881234567890 in transit
invoice 2024-000123 paid
build #20241121.3 succeeded
ip 192.168.1.100 port 5432
mac 00:1B:44:11:3A:B7
trace_id=~h32~ span_id=~h16~
user 12345 logged in
password reset requested
invalid password
Password updated successfully
token expired
tokens used: 1234
max_tokens=1024 temperature=0.7
The token limit is 4096 for this model.
completion_tokens=321
session expired
api key missing
API key is required
secret manager unavailable
cookie consent given
authorization header missing
authentication successful for user id 42
card declined
card ending in 4242
phone number invalid
email sent to user 42
email not verified
no such file: /home/user/.ssh/id_rsa.pub
ssh-rsa public key added
public_key=MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
key not found: user:42:profile
cache key user:42:profile hit
primary key violation on orders_pkey
pin the version to 1.2.3
auth took 12ms
author: Jane
keyboard shortcut ctrl+c
the secret to good code is testing
What is the best way to hash a password in Python?
How many tokens does GPT-4 support? 8192 tokens.
Explain OAuth bearer tokens to me.
Generate a UUID like ~uuid~
The meeting is at 10:30 on 2024-11-21, room 555-1234.
isbn 978-3-16-148410-0
lat 52.5200 lon 13.4050
pi is 3.14159265358979
0xdeadbeef 0x7ffee4b5c8a0
Chrome/119.0.6045.159 Safari/537.36
docker.io/library/nginx@sha256:~h64~
arn:aws:s3:::bucket/key
s3://bucket/2024/11/21/file.parquet
node_modules/@babel/core@7.23.3
git@github.com:org/repo.git
user@host:~/project$
@dataclass class Foo
k8s pod web-7d4b9c6f8d-abcde ready
cpu 12.5% mem 1234567890
3 of 10 retries
exit code 1
code=500 error=timeout
HTTP 401 Unauthorized
SELECT password FROM users WHERE id = ?
def set_password(self, password: str) -> None:
password = getpass()
token = os.environ["TOKEN"]
PASSWORD=${PASSWORD}
password: "{{ password }}"
Bearer token required
basic auth enabled
x-request-id: ~uuid~
etag: "~h32~"
content-length: 1234567890
nonce ~h16~
csrf token mismatch
credentials expired
("auth", "0004_alter_user_username_opts"),
license MIT
signature valid
"""
